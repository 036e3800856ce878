"""What every command shares: its options, the configuration it works on, and how it speaks."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from index.settings import AppArgs, application_args, load
from policies.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cluster.jobs import Progress
    from cluster.state import State
    from index.ledger import Ledger

DEFAULT_CONFIG = Path("serve_config.yaml")
DEFAULT_DATA_DIR = ".rayrag"
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it (control), what turns text around, and what cannot be written."""
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="The Serve configuration file.", show_default=False)
]
DataDirOption = Annotated[
    str | None, typer.Option("--data-dir", help="Where data and state live; default .rayrag.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def find_data_dir(config: Path | None, data_dir: str | None) -> Path:
    """Find the data directory as `rayrag up` would: the option, the environment, the file, `.rayrag`."""
    named = data_dir or os.environ.get("RAYRAG_DATA_DIR")
    path = config or DEFAULT_CONFIG
    if not named and path.exists():
        named = str(application_args(path).get("data_dir") or "")
    return Path(named or DEFAULT_DATA_DIR).expanduser().absolute()


def read_settings(config: Path | None, data_dir: str | None) -> AppArgs:
    """Read the configuration that is running, else the one that would run."""
    where = find_data_dir(config, data_dir)
    running = where / "serve_config.yaml"
    return load(config or (running if running.exists() else DEFAULT_CONFIG), str(where))


def find_running(data_dir: Path) -> State:
    """Give what runs there. Raises `Unavailable` where nothing does."""
    from cluster.state import read_state

    state = read_state(data_dir)
    if state is None:
        raise Unavailable(f"Nothing runs in {data_dir}: start it with rayrag up, or give its --data-dir.")
    return state


@contextmanager
def opened_ledger(config: Path | None, data_dir: str | None) -> Iterator[Ledger]:
    """Open the ledger for one command."""
    from index.ledger import Ledger

    ledger = Ledger(read_settings(config, data_dir).store.ledger)
    try:
        yield ledger
    finally:
        ledger.close()


def shown(text: str) -> str:
    """Make a document's or a model's text fit for a terminal: it says something, and does nothing."""
    return _UNSAFE.sub("", text)


def json_text(value: Any, indent: int | None = 2) -> str:
    """Write JSON for people and programs: what a terminal would obey is escaped, the rest stays readable."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, indent=indent, ensure_ascii=False))


def words(text: str) -> list[str]:
    """Take a list apart that commas separate."""
    return [word.strip() for word in text.split(",") if word.strip()]


@contextmanager
def steps(first: str) -> Iterator[Callable[[str], None]]:
    """Show what happens: a spinner on a terminal, a line for each step elsewhere. All of it on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: print(text, file=sys.stderr, flush=True)
        return
    with console.status(first) as spinner:
        yield spinner.update


@contextmanager
def documents_bar() -> Iterator[Callable[[Progress], None]]:
    """Show how many documents are done: a bar on a terminal, a line at a time elsewhere. All of it on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:

        def line(now: Progress) -> None:
            text = f"progress {now.done}/{now.total} documents, {now.chunks} chunks, {now.seconds:.1f} s"
            print(text, file=sys.stderr, flush=True)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("documents, {task.fields[chunks]} chunks"))
    with Bar(*columns, TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task("ingest", total=None, chunks=0)
        yield lambda now: bar.update(task, completed=now.done, total=now.total, chunks=now.chunks)


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere."""
    console = Console()
    if not console.is_terminal:
        print("\t".join(columns))
        for row in rows:
            print("\t".join(shown(" ".join(cell.split())) for cell in row))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    console.print(table)
