"""`python -m bench [NAME ...]`: measure, print one table, write `bench/results/`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import (
    audit,
    existence,
    footprint,
    freshness,
    ingest,
    ingress_cost,
    pii,
    quality_eval,
    retrieve,
    rights,
    screening,
    selectivity,
    tokens,
)
from bench.context import Figure, machine

NAMES = (
    "ingest",
    "retrieve",
    "footprint",
    "quality",
    "freshness",
    "histories",
    "rights",
    "ingress",
    "tokens",
    "selectivity",
    "existence",
    "audit",
    "pii",
    "screening",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurements that are named, or all. Exit code 1 where a miss cannot be the machine's fault."""
    options = _options(argv)
    # A service that a measurement started must end with it, also at a `kill`.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    work: dict[str, Callable[[], list[Figure]]] = {
        "ingest": lambda: ingest.run(options.documents, options.data),
        "retrieve": lambda: retrieve.run(options.chunks, options.questions, options.keep),
        "footprint": lambda: footprint.run(options.idle),
        "quality": lambda: quality_eval.run(options.set),
        "freshness": lambda: freshness.run(freshness.Counts(files=options.files, cycles=options.cycles)),
        "histories": lambda: freshness.histories(options.histories),
        "rights": lambda: rights.run(options.sizes or rights.SIZES, options.repeats, options.keep),
        "ingress": lambda: ingress_cost.run(options.requests),
        "tokens": lambda: tokens.run(options.vectors),
        "selectivity": lambda: selectivity.run(options.passages, options.questions),
        "existence": lambda: existence.run(options.samples),
        "audit": lambda: audit.run(options.appends, options.postgresql, options.keep),
        "pii": lambda: pii.run(options.pii_file, options.samples),
        "screening": lambda: screening.run(options.answers),
    }
    figures = [figure for name in options.names or NAMES for figure in work[name]()]
    show(figures)
    return 1 if any(figure.must and figure.met is False for figure in figures) else 0


def show(figures: Sequence[Figure]) -> None:
    """Print the table: on a terminal with lines, elsewhere separated by tabs."""
    console = Console()
    columns = ("bench", "figure", "value", "n", "target", "met")
    words = {None: "", True: "yes", False: "NO"}
    rows = [(f.bench, f.name, f.value, str(f.n), f.target, words[f.met]) for f in figures]
    if console.is_terminal:
        table = Table(*columns)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    else:
        for row in (columns, *rows):
            print("\t".join(row))
    now = machine()
    load = " ".join(str(value) for value in now["load_average"])
    print(f"{now['cpu']}, {now['cores']} cores, {now['memory_gb']} GB; load now {load}; {now['date']}")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; none: all of them")
    parser.add_argument("--documents", type=int, default=3_000, help="ingest: how many")
    parser.add_argument("--data", type=Path, help="ingest: a folder with corpus.jsonl in BEIR's layout")
    parser.add_argument("--chunks", type=int, default=20_000, help="retrieve: how many are searched")
    parser.add_argument(
        "--questions",
        type=int,
        default=200,
        help="retrieve: how many, for each kind of reranking; selectivity: at each share",
    )
    parser.add_argument("--keep", type=Path, help="retrieve, rights: fill this directory once, use it again")
    parser.add_argument("--idle", type=float, default=footprint.IDLE_S, help="footprint: seconds before weighing")
    parser.add_argument("--set", action="append", default=[], help="quality: only this collection; may be repeated")
    parser.add_argument("--files", type=int, default=10_000, help="freshness: of the listing without a change")
    parser.add_argument("--cycles", type=int, default=50, help="freshness: over which memory is watched")
    parser.add_argument("--sizes", type=int, action="append", help="rights: chunks that are searched; may be repeated")
    parser.add_argument("--repeats", type=int, default=15, help="rights: questions for each number of rules")
    parser.add_argument("--histories", type=int, default=2_000, help="histories: how many")
    parser.add_argument("--requests", type=int, default=2_000, help="ingress: how many")
    parser.add_argument("--passages", type=int, default=100_000, help="selectivity: how many, most of them hidden")
    parser.add_argument("--samples", type=int, default=2_000, help="existence: answers of each kind; pii: texts made")
    parser.add_argument("--pii-file", type=Path, help="pii: a file in presidio-research's format")
    parser.add_argument("--appends", type=int, default=2_000, help="audit: for each number of writers")
    parser.add_argument("--postgresql", help="audit: an SQLAlchemy URL of a PostgreSQL to measure, too")
    parser.add_argument("--answers", type=int, default=300, help="screening: how many")
    parser.add_argument("--vectors", type=Path, help="tokens: a folder with Wycheproof's JOSE files")
    options = parser.parse_args(argv)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(NAMES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
