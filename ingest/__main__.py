"""`python -m ingest bulk` and `python -m ingest reindex`: the jobs that `ray job submit` runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from index.models import MAKES_THE_MODEL
from index.settings import AppArgs, EmbeddingSettings, load
from ingest.acl_file import parse_acl
from ingest.bulk import Bulk
from ingest.reindex import Reindex, as_dict
from ingest.report import Report
from policies.access import NOBODY
from policies.errors import RayragError
from policies.labels import Label

EXIT_FAILED = 1
PROGRESS_EVERY_S = 1.0


def main(argv: list[str] | None = None) -> int:
    """Run one job and print its report as JSON on the last line."""
    options = _options(argv)
    try:
        text = json.dumps(options.run(load(Path(options.config)), options), ensure_ascii=False)
        if options.report:
            Path(options.report).write_text(text + "\n", encoding="utf-8")
    except RayragError as error:
        print(f"ingest: {error.detail}", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        print(f"ingest: {error.filename or options.report}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED
    print(f"report {text}", flush=True)
    return 0


def _bulk(args: AppArgs, options: argparse.Namespace) -> dict[str, Any]:
    label = Label.of(options.label) if options.label else args.identity.default_label
    rule = replace(parse_acl(options.acl) if options.acl else NOBODY, label=label)
    return Bulk(args, ProgressLines()).run(options.source, options.tenant, rule).as_dict()


def _reindex(args: AppArgs, options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("query_prefix", "passage_prefix", "max_tokens")}
    changes = {name: value for name, value in given.items() if value is not None}
    # The old model's prefixes and hash mean nothing for another.
    new = {"model": options.model, "max_tokens": args.embedding.max_tokens, **changes}
    kept = args.embedding.model_dump(exclude=set(MAKES_THE_MODEL))
    reindex = Reindex(args, ProgressLines())
    try:
        return as_dict(reindex.run(EmbeddingSettings(**kept, **new), options.sample, options.seed))
    finally:
        reindex.close()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ingest", description="Bring the index to what a source holds.")
    commands = parser.add_subparsers(dest="command", required=True)
    bulk = commands.add_parser("bulk", help="ingest a directory, a file, a bucket or a JSONL file with Ray Data")
    bulk.add_argument("--config", default="serve_config.yaml")
    bulk.add_argument("--source", required=True, help="path or URL: a directory, a file, s3://…, or *.jsonl")
    bulk.add_argument("--tenant", required=True)
    bulk.add_argument("--acl", default="", help='group:a,user:b or {"allow": […], "deny": […]}; none: nobody')
    bulk.add_argument("--label", default="", help="of what says none itself; none: identity.default_label")
    bulk.add_argument("--report", help="write the report to this file as JSON")
    bulk.set_defaults(run=_bulk)
    reindex = commands.add_parser("reindex", help="fill the index for another embedding model, and compare the two")
    reindex.add_argument("--config", default="serve_config.yaml")
    reindex.add_argument("--model", required=True, help="the new model's directory")
    reindex.add_argument("--query-prefix")
    reindex.add_argument("--passage-prefix")
    reindex.add_argument("--max-tokens", type=int)
    reindex.add_argument("--sample", type=int, default=200, help="questions to compare the models with")
    reindex.add_argument("--seed", type=int, default=0)
    reindex.add_argument("--report", help="write the report to this file as JSON")
    reindex.set_defaults(run=_reindex)
    return parser.parse_args(argv)


class ProgressLines:
    """At most one line a second, which `rayrag ingest` draws as a bar: `progress DONE/TOTAL documents, …`."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, report: Report) -> None:
        done = report.indexed + report.unchanged + report.quarantined
        now = time.monotonic()
        if now - self._last < PROGRESS_EVERY_S and done < report.discovered:
            return
        self._last = now
        of_total = f"{done}/{report.discovered} documents"
        print(f"progress {of_total}, {report.chunks} chunks, {report.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
