"""The page on rights shows what happens: its files are used, its commands run, and their output is that of the page."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main
from index.document import document_id
from index.ledger import Ledger
from index.settings import load
from ingest.connector import Connector, Entry, Gone, Mark
from ingest.report import Outcome
from ingest.source_sync import SourceSync
from ingest.sources import open_connector, parse_source, uri_of
from policies.access import AccessRule

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rights.md").read_text(encoding="utf-8")
EXAMPLES = [text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE) if text.startswith("Example ")]
FILES = {
    "finance": ["budget.md", "handbook.md"],
    "hr-files": ["salaries/2026.md", "policy.md", "holidays.md"],
}
Run = Callable[[str], str]


class Wiki:
    """What the wiki says of one page."""

    def __init__(self, settings: Any) -> None:
        rule = AccessRule.of(["group:wiki-controlling", "user:jsmith@acme.example"])
        self._entry = Entry(settings.ref("4711", "https://acme.atlassian.net/wiki/4711", rule, "1", title="Forecast"))

    def list(self, cursor: str | None) -> Iterator[Entry | Gone | Mark]:
        yield self._entry
        yield Mark(None, complete=True)


class NoRows:
    """The vector store is not asked."""

    def flush(self) -> None: ...


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def files(example: str) -> Mapping[str, str]:
    """The page's files, by the name in their first line."""
    return {block.split("\n")[0].removeprefix("# "): block for block in blocks(example, "yaml")}


def prepare(example: str, home: Path) -> None:
    """Configure, and list the sources, as the example says; `/srv` is a folder of the test."""
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    said = yaml.safe_load(files(example).get("serve_config.yaml, under args:", "{}")) or {}
    config["applications"][0]["args"]["identity"] |= said.get("identity", {})
    (home / "serve_config.yaml").write_text(yaml.safe_dump(config))
    args = load(home / "serve_config.yaml", str(home / ".rayrag"))
    ledger = Ledger(args.store.ledger)
    for source in yaml.safe_load(files(example)["sources.yaml"])["sources"]:
        if "path" in source:
            folder = home / source["path"].lstrip("/")
            for name in FILES[source["name"]]:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text("text")
            (folder / "acl.yaml").write_text(files(example)[f"{source['path']}/acl.yaml"])
            source["path"] = str(folder)
        settings = parse_source(source).with_label(args.identity.default_label)
        connector: Any = Wiki(settings) if source["kind"] == "confluence" else open_connector(settings)
        listed(ledger, settings, connector)
    ledger.close()


def listed(ledger: Ledger, settings: Any, connector: Connector) -> None:
    def work(entries: list[Entry]) -> Iterator[Outcome]:
        for entry in entries:
            ref = entry.ref
            assert ledger.flip(ref, version := ledger.begin_version(ref, "hash", 1, "run"))
            yield Outcome(ref.document_id, ref.external_id, ref.uri, "indexed", version, 1)

    rows: Any = NoRows()
    SourceSync(settings, uri_of(settings), connector, ledger, rows, "key", work).list()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYRAG_DATA_DIR", raising=False)

    def shown(command: str) -> str:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with suppress(SystemExit):
            main()
        told = capsys.readouterr()
        assert told.err == ""
        return told.out

    return shown


def commands(example: str) -> list[tuple[str, str]]:
    """Each command of a page, with the output that the page shows."""
    text = "".join(blocks(example, "console"))
    found = re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    return [(command, output) for command, output in found]


def without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", text)


@pytest.mark.parametrize("example", EXAMPLES, ids=[text.split(":")[0] for text in EXAMPLES])
def test_the_page_shows_what_the_commands_say(example: str, tmp_path: Path, run: Run) -> None:
    prepare(example, tmp_path)
    for command, output in commands(example):
        assert output, command
        assert without_times(run(command)) == without_times(output), command


def test_the_page_has_three_examples_that_allow_and_refuse() -> None:
    assert len(EXAMPLES) == 3
    for example in EXAMPLES:
        outputs = "".join(output for _, output in commands(example))
        assert "may read" in outputs and "may not read" in outputs
    assert "denied by group:contractors" in EXAMPLES[0]
    assert document_id("acme", "finance", "budget.md") in EXAMPLES[0]


def test_every_configuration_that_the_page_shows_is_accepted(tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    shown = [block for block in blocks(PAGE, "yaml") if block.startswith("# serve_config.yaml")]
    assert shown
    for block in shown:
        config["applications"][0]["args"]["identity"]["roles"] = yaml.safe_load(block)["identity"]["roles"]
        (tmp_path / "serve_config.yaml").write_text(yaml.safe_dump(config))
        assert load(tmp_path / "serve_config.yaml").identity.roles
