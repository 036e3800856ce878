"""`python -m ingest bulk`: the job that `ray job submit` runs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from index.settings import load
from ingest.acl_file import parse_acl
from ingest.bulk import Bulk
from ingest.report import Report
from policies.access import NOBODY
from policies.errors import RayragError

EXIT_FAILED = 1
PROGRESS_EVERY_S = 1.0


def main(argv: list[str] | None = None) -> int:
    """Run one ingestion and print its report as JSON on the last line."""
    options = _options(argv)
    try:
        args = load(Path(options.config))
        rule = parse_acl(options.acl) if options.acl else NOBODY
        report = Bulk(args, ProgressLines()).run(options.source, options.tenant, rule)
        text = json.dumps(report.as_dict(), ensure_ascii=False)
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


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ingest", description="Bring the index to what a source holds.")
    commands = parser.add_subparsers(dest="command", required=True)
    bulk = commands.add_parser("bulk", help="ingest a directory, a file, a bucket or a JSONL file with Ray Data")
    bulk.add_argument("--config", default="serve_config.yaml")
    bulk.add_argument("--source", required=True, help="path or URL: a directory, a file, s3://…, or *.jsonl")
    bulk.add_argument("--tenant", required=True)
    bulk.add_argument("--acl", default="", help='group:a,user:b or {"allow": […], "deny": […]}; none: nobody')
    bulk.add_argument("--report", help="write the report to this file as JSON")
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
