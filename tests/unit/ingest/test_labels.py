"""Where a label comes from: the document, its `acl.yaml`, its source, or the configuration; never from a guess."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.settings import IdentitySettings
from ingest.connector import Entry
from ingest.connectors.filesystem import FilesystemSettings
from ingest.folder_rules import FolderRules
from ingest.place import place_settings
from ingest.source_sync import SourceSync
from ingest.sources import open_connector, parse_source, source_of
from ingest.stages import narrowed
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError
from policies.labels import Label
from policies.principals import Principal

STAFF = AccessRule.of(["group:staff"])
MALFORMED = ["", "Restricted", "secret", " public", 3, True, None, ["public"], {"public": 1}]


def labels(place: Path, label: Label = Label.PUBLIC) -> dict[str, Label]:
    connector = open_connector(place_settings(str(place), "acme", "files", AccessRule.of(["everyone"], label=label)))
    return {item.ref.external_id: item.ref.rule.label for item in connector.list(None) if isinstance(item, Entry)}


def write(place: Path, name: str, text: Any) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text if isinstance(text, str) else json.dumps(text))


def test_an_acl_files_label_holds_and_what_it_is_silent_of_has_the_sources(tmp_path: Path) -> None:
    for name in ("a.md", "hr/pay/b.md", "hr/c.md", "hr/handbook.md", "hr/press/d.md"):
        write(tmp_path, name, "text")
    hr = [
        {"path": "**", "allow": ["group:hr"], "label": "confidential"},
        {"path": "pay/**", "allow": ["group:pay"], "label": "restricted"},
        {"path": "handbook.md", "allow": ["everyone"]},
    ]
    write(tmp_path, "hr/acl.yaml", hr)
    write(tmp_path, "hr/press/acl.yaml", [{"path": "*", "allow": ["everyone"], "label": "public"}])

    assert labels(tmp_path, Label.INTERNAL) == {
        "a.md": Label.INTERNAL,
        "hr/c.md": Label.CONFIDENTIAL,
        "hr/handbook.md": Label.CONFIDENTIAL,
        "hr/pay/b.md": Label.RESTRICTED,
        "hr/press/d.md": Label.PUBLIC,
    }


def test_a_deeper_file_that_gives_no_label_does_not_lower_the_one_above(tmp_path: Path) -> None:
    write(tmp_path, "hr/a.md", "text")
    write(tmp_path, "acl.yaml", [{"path": "hr/**", "allow": ["group:hr"], "label": "restricted"}])
    write(tmp_path, "hr/acl.yaml", [{"path": "**", "allow": ["everyone"]}])

    assert labels(tmp_path) == {"hr/a.md": Label.RESTRICTED}


entries = st.lists(
    st.tuples(st.sampled_from(["**", "a/**", "a/b/*", "*.md"]), st.none() | st.sampled_from(Label)), max_size=4
)


@settings(max_examples=200, deadline=None)
@given(outer=entries, inner=entries, path=st.sampled_from(["x.md", "a/x.md", "a/b/x.md"]))
def test_the_label_is_that_of_the_last_entry_that_matches_and_has_one(
    outer: list[Any], inner: list[Any], path: str
) -> None:
    def file(of: list[Any]) -> bytes:
        said = [{"path": glob, "allow": ["everyone"], **({"label": own.word} if own else {})} for glob, own in of]
        return json.dumps([{k: v for k, v in each.items()} for each in said]).encode()

    def match(glob: str, rest: str) -> bool:
        return bool(re.fullmatch({"**": ".+", "a/**": "a/.+", "a/b/*": "a/b/[^/]+", "*.md": "[^/]+[.]md"}[glob], rest))

    outer, inner = ([(glob, own or None) for glob, own in of] for of in (outer, inner))
    rules = FolderRules(label=Label.RESTRICTED).within("", file(outer))
    rests = [(outer, path)]
    if path.startswith("a/"):
        rules, rests = rules.within("a/", file(inner)), [(outer, path), (inner, path[2:])]
    hits = [own for of, rest in rests for glob, own in of if match(glob, rest)]
    said = [own for own in hits if own is not None]
    rule = rules.rule_for(path)

    assert (rule is None) == (not hits)
    assert rule is None or rule.label is (said[-1] if said else Label.RESTRICTED)


@pytest.mark.parametrize("label", MALFORMED)
def test_an_acl_file_with_a_malformed_label_stops_the_sync_and_names_the_entry(tmp_path: Path, label: Any) -> None:
    write(tmp_path, "a.md", "text")
    write(tmp_path, "acl.yaml", [{"path": "**", "allow": []}, {"path": "a.md", "allow": [], "label": label}])

    with pytest.raises(ConfigurationError, match=r"acl.yaml: entry 2: label: .* is none; write public, internal"):
        labels(tmp_path)


def test_a_row_says_its_label_or_has_its_files(tmp_path: Path) -> None:
    said = [{"id": "said", "text": "t", "label": "public"}, {"id": "unsaid", "text": "t"}]
    other = {"id": "other readers", "text": "t", "acl": ["group:x"]}
    write(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, [*said, other])))
    write(tmp_path, "acl.yaml", [{"path": "*.jsonl", "allow": ["everyone"], "label": "confidential"}])

    assert labels(tmp_path) == {
        "rows.jsonl#said": Label.PUBLIC,
        "rows.jsonl#unsaid": Label.CONFIDENTIAL,
        "rows.jsonl#other readers": Label.CONFIDENTIAL,
    }


@pytest.mark.parametrize("label", MALFORMED)
def test_a_row_with_a_malformed_label_is_an_error_with_a_reason_and_nobody_reads_it(tmp_path: Path, label: Any) -> None:
    row = {"id": "a", "text": "t", "acl": ["everyone"], "label": label}
    write(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, [row, {"id": "b", "text": "t"}])))
    place = place_settings(str(tmp_path / "rows.jsonl"), "acme", "rows", STAFF)
    bad, good = (item for item in open_connector(place).list(None) if isinstance(item, Entry))

    assert bad.error is not None and re.match(r"line 1: label: .* is none; write public, internal", bad.error)
    assert bad.ref.rule == NOBODY and good.error is None and good.ref.rule == STAFF


def test_a_wrong_row_lowers_no_label_of_what_is_live() -> None:
    held = AccessRule.of(["everyone"], label=Label.RESTRICTED)
    for rule in [NOBODY, AccessRule.of(["everyone"], label=Label.PUBLIC)]:
        assert narrowed(held, rule).label is Label.RESTRICTED
    assert narrowed(AccessRule.of(["everyone"]), held).label is Label.RESTRICTED


# ---- the source's


def test_the_owners_rights_come_under_the_sources_label(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "text")
    source = FilesystemSettings(
        kind="filesystem", name="s", tenant="t", path=str(tmp_path), owner_rights=True, label=Label.CONFIDENTIAL
    )
    found = [item for item in open_connector(source).list(None) if isinstance(item, Entry)]

    assert [entry.ref.rule.label for entry in found] == [Label.CONFIDENTIAL]


def test_every_document_of_every_kind_of_source_is_named_under_the_sources_label() -> None:
    """Settings give it (`ref`); those few that name documents otherwise know of labels, and are tested here."""
    knowing = {"source_settings.py", "rows.py", "connectors/filesystem_visit.py", "connectors/store_visit.py"}
    room = Path(__file__).parents[3] / "ingest"
    naming = {str(path.relative_to(room)) for path in room.rglob("*.py") if "DocumentRef(" in path.read_text()}
    assert naming == knowing
    source = source_of("s", "https://example.org", "t", STAFF, watch=False, label=Label.RESTRICTED)
    assert source.ref("x", "x", STAFF, label=Label.PUBLIC).rule.label is Label.PUBLIC
    assert source.ref("x", "x", STAFF).rule == AccessRule.of(["group:staff"], label=Label.RESTRICTED)
    assert source.rule.label is Label.RESTRICTED


def test_a_source_without_a_label_has_the_default_one_and_keeps_its_own() -> None:
    unsaid = parse_source({"kind": "filesystem", "name": "s", "tenant": "t", "path": "/x"})
    said = parse_source(unsaid.model_dump_json(exclude_unset=True)).with_label(Label.CONFIDENTIAL)

    assert unsaid.label is None and unsaid.rule.label is Label.INTERNAL
    assert said.rule.label is Label.CONFIDENTIAL
    assert said.with_label(Label.PUBLIC) == said
    assert parse_source(said.model_dump_json(exclude_unset=True)) == said


@pytest.mark.parametrize("label", MALFORMED)
def test_a_malformed_label_in_the_settings_stops_the_start(label: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"s: filesystem\.label: .* is none; write public"):
        parse_source({"kind": "filesystem", "name": "s", "tenant": "t", "path": "/x", "label": label}, "s")
    issuer = {"issuer": "i", "audience": "a", "algorithms": ["EdDSA"], "key_file": "k"}
    with pytest.raises(ValueError, match="is none; write public"):
        IdentitySettings.model_validate({"issuers": [issuer], "default_label": label})


def test_another_label_is_a_change_of_rights_that_embeds_nothing(world: Any) -> None:
    bob, boss = Principal("bob", "acme"), Principal("boss", "acme", clearance=Label.RESTRICTED)
    world.desk.put("a", "one")
    world.sync.list()
    assert world.reads(bob, "a") == "one"
    for label, seen in [(Label.RESTRICTED, None), (Label.PUBLIC, "one")]:
        world.desk.settings = world.desk.settings.model_copy(update={"label": label})
        world.desk.put("a", "one")
        report = world.sync.list()
        assert (report.access_changed, report.updated, report.embedded) == (1, 0, 0)
        assert (world.reads(bob, "a"), world.reads(boss, "a")) == (seen, "one")


def test_a_source_whose_label_changes_is_listed_anew(world: Any) -> None:
    world.desk.put("a", "one")
    world.sync.list()
    settings = world.desk.settings.with_label(Label.RESTRICTED)
    SourceSync(settings, "desk:", world.desk, world.ledger, world.rows, "key", world.sync._process).list()

    assert world.desk.asked == [None, None]
