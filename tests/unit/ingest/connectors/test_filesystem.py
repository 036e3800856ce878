"""The file system's connector: real files, real rights, the kernel's own events."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.connector import Entry, Gone, Mark, Unreadable
from ingest.connectors.filesystem import FilesystemConnector, FilesystemSettings
from ingest.connectors.filesystem_rights import Bits, readers
from ingest.connectors.filesystem_watching import ids_to_look_at
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, RightsUnreadable, SourceUnavailable, TooLarge

ALL = AccessRule.of(["group:all"])
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def connector(path: Path | str, **more: object) -> FilesystemConnector:
    values = {"kind": "filesystem", "name": "files", "tenant": "acme", "acl": ["group:all"], "path": str(path)} | more
    return FilesystemConnector(FilesystemSettings.model_validate(values))


def listed(path: Path, **more: object) -> dict[str, Entry]:
    *items, mark = connector(path, **more).list(None)
    assert mark == Mark(None, complete=True)
    assert all(isinstance(item, Entry) for item in items)
    return {item.ref.external_id: item for item in items if isinstance(item, Entry)}


def looked(path: Path, *ids: str, **more: object) -> list[Entry | Gone]:
    return list(connector(path, **more).look(ids))


def entries(items: Sequence[Entry | Gone]) -> dict[str, Entry]:
    found = [item for item in items if isinstance(item, Entry)]
    assert len({entry.ref.external_id for entry in found}) == len(found)
    return {entry.ref.external_id: entry for entry in found}


def gone(items: Sequence[Entry | Gone]) -> dict[str, bool]:
    return {item.external_id: item.below for item in items if isinstance(item, Gone)}


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        put(root / name, text)


def put(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def rows(path: Path, *ids: str) -> Path:
    return put(path, "\n".join(json.dumps({"id": each, "text": f"text of {each}"}) for each in ids))


def after(known: dict[str, Entry], items: Sequence[Entry | Gone]) -> dict[str, Entry]:
    """What is known after a look, as its contract says."""
    named = entries(items)
    left = dict(known)
    for external_id, below in gone(items).items():
        for each in known:
            if each == external_id or (below and each.startswith((f"{external_id}/", f"{external_id}#"))):
                left.pop(each, None)
    return left | named


# ---- settings


@pytest.mark.parametrize("path", ["s3://bucket/x", "zip::memory://x", "", "a\x00b"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        connector(path)


def test_connector_connects_to_nothing_and_travels(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(connector(tmp_path / "none")))


def test_check_names_what_cannot_be_read(tmp_path: Path) -> None:
    connector(tmp_path).check()
    connector(put(tmp_path / "a.md")).check()
    with pytest.raises(SourceUnavailable, match="no such file or folder"):
        connector(tmp_path / "none").check()
    put(tmp_path / "acl.yaml", "- {path: a, alow: []}")
    with pytest.raises(ConfigurationError, match="entry 1"):
        connector(tmp_path).check()


@pytest.mark.parametrize(
    ("name", "text"),
    [("acl.yaml", "- {path: a, alow: []}"), ("acl.yaml", "["), ("ACL.yaml", "[]"), ("acl.yml", "[]")],
)
def test_a_folder_whose_rights_cannot_be_read_is_named(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path / "hr" / "a.md")
    put(tmp_path / "hr" / name, text)
    for path in ("hr/a.md", "hr"):
        with pytest.raises(RightsUnreadable) as caught:
            looked(tmp_path, path)
        assert caught.value.below == "hr/"
    put(tmp_path / "b.md")
    [other, unreadable, mark] = connector(tmp_path).list(None)
    assert isinstance(other, Entry) and other.ref.external_id == "b.md" and isinstance(mark, Mark)
    assert isinstance(unreadable, Unreadable) and unreadable.below == "hr/" and name in unreadable.reason


def test_folders_whose_rights_cannot_be_read_hold_up_no_others(tmp_path: Path) -> None:
    for folder in ("a", "b", "b/deep", "c", "d/e"):
        put(tmp_path / folder / "x.md")
    for folder in ("b", "d/e"):
        put(tmp_path / folder / "acl.yaml", "oops")
    put(tmp_path / "b" / "deep" / "ACL.yaml", "[]")
    items = list(connector(tmp_path).list(None))
    assert list(entries([item for item in items if isinstance(item, Entry)])) == ["a/x.md", "c/x.md"]
    assert [item.below for item in items if isinstance(item, Unreadable)] == ["b/", "d/e/"]
    assert items[-1] == Mark(None, complete=True)
    put(tmp_path / "acl.yaml", "oops")
    with pytest.raises(RightsUnreadable) as caught:
        list(connector(tmp_path).list(None))
    assert caught.value.below == ""


# ---- list


def test_entry_says_when_it_changed_and_when_that_was_seen(tmp_path: Path) -> None:
    os.utime(put(tmp_path / "a.md"), (1000, 2000))
    began_at = time.time()
    entry = listed(tmp_path)["a.md"]
    assert entry.changed_at == 2000
    assert began_at <= entry.ref.seen_at <= time.time()


def test_listing_speaks_as_of_before_it_read_the_rules(tmp_path: Path) -> None:
    """A rule that changes while a long listing goes on must not be undone by what that had read before."""
    put(tmp_path / "a.md")
    put(tmp_path / "z.md")
    items = connector(tmp_path).list(None)
    next(items)
    changed_at = time.time()
    entry = next(items)
    assert isinstance(entry, Entry)
    assert entry.ref.seen_at <= changed_at


def test_deep_tree_ends_in_an_error_and_not_in_a_crash(tmp_path: Path) -> None:
    put(tmp_path / "a.md")
    here = os.getcwd()
    try:
        os.chdir(tmp_path)
        for _ in range(150):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    try:
        found = listed(tmp_path)
        assert found.pop("a.md").error is None
        [deep] = found.values()
        assert deep.error == "more than 100 folders deep"
        assert looked(tmp_path, deep.ref.external_id) == [Gone(deep.ref.external_id, below=True), deep]
        assert looked(tmp_path, "d/" * 140 + "d") == [Gone("d/" * 140 + "d", below=True)]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_listing_costs_microseconds_a_file(tmp_path: Path) -> None:
    for folder in range(10):
        (tmp_path / str(folder)).mkdir()
        for number in range(100):
            (tmp_path / str(folder) / f"{number}.md").touch()
    began = time.process_time()
    assert len(listed(tmp_path)) == 1000
    assert time.process_time() - began < 0.2  # about 0.03 s


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("javascript:alert(1)", "uri: give"),
        ("java\tscript:alert(1)", "uri: give"),
        (" https://x", "uri: give"),
        ("data:text/html,x", "uri: give"),
        ("vbscript:x", "uri: give"),
        ("https://x/\u202e", "uri: give"),
        ("x" * 3000, "uri: at most"),
        ("https://x/y", None),
        ("docs/a b.md", None),
        ("/srv/a.md", None),
        ("#part", None),
    ],
)
def test_row_whose_uri_nobody_should_follow_is_quarantined(tmp_path: Path, uri: str, reason: str | None) -> None:
    put(tmp_path / "d.jsonl", json.dumps({"id": "1", "text": "t", "uri": uri, "acl": ["group:hr"]}))
    [entry] = listed(tmp_path).values()
    assert entry.ref.rule == AccessRule.of(["group:hr"])
    if reason is None:
        assert (entry.ref.uri, entry.error) == (uri, None)
    else:
        assert entry.error is not None and reason in entry.error
        assert entry.inline is None and entry.ref.uri.endswith("d.jsonl")


def test_row_with_a_nul_in_its_id_is_quarantined(tmp_path: Path) -> None:
    put(tmp_path / "d.jsonl", '{"id": "a\\u0000b", "text": "t"}')
    assert listed(tmp_path)["d.jsonl#line-1"].error == "line 1: id: holds a NUL character"


# ---- look


def test_look_names_a_file_as_a_listing_does(tmp_path: Path) -> None:
    put(tmp_path / "hr" / "deep" / "pay.md")
    put(tmp_path / "open.md")
    put(tmp_path / "acl.yaml", "- {path: 'hr/**', allow: ['group:hr']}")
    put(tmp_path / "hr" / "deep" / "acl.yaml", "- {path: 'pay.md', allow: ['user:ada']}")
    items = looked(tmp_path, "hr/deep/pay.md", "open.md")
    assert items == [listed(tmp_path)["hr/deep/pay.md"], listed(tmp_path)["open.md"]]
    assert entries(items)["hr/deep/pay.md"].ref.rule == AccessRule.of(["user:ada"])


def test_folder_stands_for_what_is_in_it_and_no_longer_in_it(tmp_path: Path) -> None:
    for name in ("a/x.md", "a/b/y.md", "a/.hidden", "z.md"):
        put(tmp_path / name)
    items = looked(tmp_path, "a")
    assert items[0] == Gone("a", below=True)
    assert set(entries(items)) == {"a/x.md", "a/b/y.md"}


def test_file_of_rows_stands_for_its_rows_and_a_row_for_itself(tmp_path: Path) -> None:
    rows(tmp_path / "s" / "d.jsonl", "1", "2", "../up", "x#y")
    items = looked(tmp_path, "s/d.jsonl")
    assert items[0] == Gone("s/d.jsonl", below=True)
    assert set(entries(items)) == {"s/d.jsonl#1", "s/d.jsonl#2", "s/d.jsonl#../up", "s/d.jsonl#x#y"}
    assert entries(looked(tmp_path, "s/d.jsonl#../up", "s/d.jsonl#x#y")).keys() == {"s/d.jsonl#../up", "s/d.jsonl#x#y"}
    assert looked(tmp_path, "s/d.jsonl#3") == [Gone("s/d.jsonl#3")]
    assert looked(tmp_path, "s/none.jsonl#1") == [Gone("s/none.jsonl#1", below=True)]


def test_nothing_is_named_twice_that_is_there_once(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "x.md")
    rows(tmp_path / "a" / "d.jsonl", "1")
    items = looked(tmp_path, "a/b/x.md", "a/d.jsonl#1", "a", "a/d.jsonl", "a/b", "a/gone.md", "a")
    assert set(entries(items)) == {"a/b/x.md", "a/d.jsonl#1"}
    assert gone(items) == {"a": True, "a/gone.md": False}


def test_row_and_file_of_one_id_are_both_named_as_in_a_listing(tmp_path: Path) -> None:
    """The planner rejects both: neither may take the other's place."""
    rows(tmp_path / "d.jsonl", "1")
    put(tmp_path / "d.jsonl#1")
    items = looked(tmp_path, "d.jsonl#1")
    assert [item.ref.external_id for item in items if isinstance(item, Entry)] == ["d.jsonl#1"] * 2


def test_neighbour_whose_name_goes_on_with_a_number_sign_is_not_taken_for_gone(tmp_path: Path) -> None:
    for name in ("C/a.md", "C#/a.md", "C#.md", "D#1.md", "D#/x/y.md"):
        put(tmp_path / name)
    known = listed(tmp_path)
    assert after(known, looked(tmp_path, "C")) == known
    assert after(known, looked(tmp_path, "D")) == known
    shutil.rmtree(tmp_path / "C")
    assert set(after(known, looked(tmp_path, "C"))) == {"C#/a.md", "C#.md", "D#1.md", "D#/x/y.md"}


@pytest.mark.parametrize(
    "hostile",
    [
        "../secret.md",
        "a/../../secret.md",
        "/etc/hostname",
        "a\x00.md",
        "",
        ".",
        "..",
        "a//x.md",
        "./a/x.md",
        "a/",
        "\u202ea.md",
        "x" * 10_000,
        "a/" * 5_000 + "x",
        ".jsonl#" * 1_000,
        "\udcff\ud800",
        "a/.hidden",
        ".git/config",
        "acl.yaml",
        "a/Thumbs.db",
        "~$open.docx",
    ],
)
def test_id_that_no_listing_names_is_gone(tmp_path: Path, hostile: str) -> None:
    put(tmp_path / "secret.md")
    root = tmp_path / "root"
    for name in ("a/x.md", "a/.hidden", ".git/config", "a/Thumbs.db", "~$open.docx"):
        put(root / name)
    put(root / "acl.yaml", "[]")
    items = looked(root, hostile)
    assert not entries(items)
    assert list(gone(items)) == [hostile]


def test_look_follows_no_link(tmp_path: Path) -> None:
    put(tmp_path / "outside" / "secret.md")
    root = tmp_path / "root"
    put(root / "real" / "a.md")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "in").symlink_to(root / "real")
    (root / "out.md").symlink_to(tmp_path / "outside" / "secret.md")
    assert gone(looked(root, "out/secret.md", "in/a.md", "in")) == {"out/secret.md": True, "in/a.md": True, "in": False}
    assert looked(root, "out.md") == [listed(root)["out.md"]]
    assert listed(root)["out.md"].error == "points outside the source"


def test_look_is_stopped_by_rules_that_cannot_be_read(tmp_path: Path) -> None:
    put(tmp_path / "a" / "x.md")
    for name in ("acl.yml", "ACL.yaml", "acl.yaml"):
        rules = put(tmp_path / "a" / name, "- {path: x.md, alow: []}")
        with pytest.raises(ConfigurationError):
            looked(tmp_path, "a/x.md")
        rules.unlink()


def test_source_that_is_gone_is_unavailable_and_its_documents_are_not_gone(tmp_path: Path) -> None:
    put(tmp_path / "root" / "a.md")
    source = connector(tmp_path / "root")
    shutil.rmtree(tmp_path / "root")
    for call in (lambda: source.look(["a.md"]), lambda: source.list(None)):
        with pytest.raises(SourceUnavailable):
            list(call())


def test_file_that_is_the_whole_source_is_known_by_its_name_or_its_rows(tmp_path: Path) -> None:
    put(tmp_path / "a.md")
    put(tmp_path / "b.md")
    assert set(entries(looked(tmp_path / "a.md", "a.md"))) == {"a.md"}
    assert looked(tmp_path / "a.md", "b.md") == [Gone("b.md")]
    path = rows(tmp_path / "d.jsonl", "1", "2")
    assert set(entries(looked(path, "d.jsonl"))) == {"1", "2"}
    assert looked(path, "2", "3") == [listed(path)["2"], Gone("3")]


def test_look_into_a_large_folder_asks_for_the_status_of_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1000):
        (tmp_path / f"{number}.md").touch()
    began = time.process_time()
    looked(tmp_path, "7.md")
    one = time.process_time() - began
    began = time.process_time()
    listed(tmp_path)
    assert one < (time.process_time() - began) / 2


NAMES = st.sampled_from(["a", "b", "a#1", "b#", "d.jsonl", "e.md", ".h", "a#1.jsonl"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@settings(max_examples=60, deadline=None)
@given(before=st.sets(PATHS, max_size=6), then=st.sets(PATHS, max_size=6), more=st.sets(PATHS, max_size=3))
def test_looking_at_what_changed_is_as_good_as_a_listing(
    tmp_path_factory: pytest.TempPathFactory, before: set[str], then: set[str], more: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    build(root, before)
    known = listed_all(root)
    shutil.rmtree(root)
    build(root, then)
    changed = {path for path in before ^ then} | more
    parents = {"/".join(path.split("/")[:n]) for path in changed for n in range(1, len(path.split("/")))}
    assert after(known, looked_once(root, changed | parents)) == listed_all(root)


def build(root: Path, paths: set[str]) -> None:
    root.mkdir(exist_ok=True)
    for path in sorted(paths, key=lambda path: -path.count("/")):
        target = root / path
        if target.exists() or any((root / part).is_file() for part in above(path)):
            continue
        rows(target, "1", "a") if path.endswith(".jsonl") else put(target, path)
        os.utime(target, (1, 1))


def above(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(1, len(names))]


def listed_all(root: Path) -> dict[str, Entry]:
    return {item.ref.external_id: item for item in connector(root).list(None) if isinstance(item, Entry)}


def looked_once(root: Path, ids: set[str]) -> list[Entry | Gone]:
    """A look; an id that the tree holds twice (a row, and a file of that name) counts once."""
    found = looked(root, *ids)
    last = {item.ref.external_id: item for item in found if isinstance(item, Entry)}
    return [item for item in found if isinstance(item, Gone)] + list(last.values())


# ---- fetch


def test_fetch_reads_up_to_its_limit(tmp_path: Path) -> None:
    entry = listed(put(tmp_path / "a.md", "12345").parent)["a.md"]
    source = connector(tmp_path)
    assert source.fetch(entry, 5) == b"12345"
    with pytest.raises(TooLarge):
        source.fetch(entry, 4)
    (tmp_path / "a.md").unlink()
    with pytest.raises(DocumentRejected, match="deleted"):
        source.fetch(entry, 5)


@pytest.mark.parametrize("suffix", ["", "|1.1.1.1"])
def test_a_file_that_changed_since_it_was_listed_is_not_read_under_its_old_rule(tmp_path: Path, suffix: str) -> None:
    entry = listed(put(tmp_path / "a.md", "12345").parent)["a.md"]
    entry = replace(entry, ref=replace(entry.ref, fingerprint=entry.ref.fingerprint + suffix))
    assert connector(tmp_path).fetch(entry, 5) == b"12345"
    put(tmp_path / "a.md", "54321")
    os.utime(tmp_path / "a.md", ns=(0, 1))
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        connector(tmp_path).fetch(entry, 5)


# ---- owner_rights


class People:
    """ada (1) is in staff (10) and audit (11); eve (2) in nothing; 99 has no name."""

    def user(self, uid: int) -> str | None:
        return {0: "root", 1: "ada", 2: "eve"}.get(uid)

    def group(self, gid: int) -> str | None:
        return {0: "root", 10: "staff", 11: "audit"}.get(gid)

    def is_member(self, uid: int, gid: int) -> bool:
        return (uid, gid) in {(1, 10), (1, 11), (0, 0)}


def bits(uid: int, gid: int, letters: str) -> Bits:
    return Bits(uid, gid, *(letter != "-" for letter in letters))


@pytest.mark.parametrize(
    ("file", "folders", "allow", "deny"),
    [
        (bits(1, 10, "rrr"), [], ["user:ada", "group:staff", "everyone"], []),
        (bits(1, 10, "rr-"), [], ["user:ada", "group:staff"], []),
        (bits(1, 10, "r--"), [], ["user:ada"], []),
        (bits(1, 10, "---"), [], [], []),
        # The group is shut out where everyone else is let in; so is the owner.
        (bits(2, 10, "r-r"), [], ["user:eve", "everyone"], ["group:staff"]),
        (bits(2, 10, "-rr"), [], ["group:staff", "everyone"], ["user:eve"]),
        (bits(2, 10, "--r"), [], ["everyone"], ["user:eve", "group:staff"]),
        # Numbers without a name are nobody, and whom nobody can deny shuts all others out.
        (bits(99, 10, "rr-"), [], ["group:staff"], []),
        (bits(1, 98, "rr-"), [], ["user:ada"], []),
        (bits(1, 98, "r-r"), [], ["user:ada"], []),
        (bits(99, 98, "rrr"), [], ["everyone"], []),
        # Folders above let each class pass or not.
        (bits(1, 10, "rrr"), [bits(0, 0, "xxx")], ["user:ada", "group:staff", "everyone"], []),
        (bits(1, 10, "rrr"), [bits(1, 10, "xx-")], ["user:ada", "group:staff"], []),
        (bits(1, 10, "rrr"), [bits(0, 10, "xx-")], ["user:ada", "group:staff"], []),
        (bits(2, 10, "rrr"), [bits(0, 10, "xx-")], ["group:staff"], []),
        (bits(1, 10, "rrr"), [bits(0, 11, "xx-")], ["user:ada"], []),
        (bits(1, 10, "rrr"), [bits(0, 0, "x--")], [], []),
        (bits(1, 10, "rrr"), [bits(0, 0, "xxx"), bits(0, 0, "x--")], [], []),
        (bits(2, 10, "rrr"), [bits(0, 11, "x-x")], ["user:eve", "group:staff", "everyone"], ["group:audit"]),
        (bits(1, 10, "rrr"), [bits(1, 11, "-xx")], ["group:staff", "everyone"], ["user:ada"]),
        # A list beside the mode: the group's bits are its mask, and somebody may be shut out by name.
        (Bits(1, 10, True, False, False, extended=True), [], ["user:ada"], []),
        (bits(1, 10, "rrr"), [Bits(0, 10, True, False, False, extended=True)], [], []),
    ],
)
def test_readers_are_whom_owner_group_and_mode_let_in(
    file: Bits, folders: list[Bits], allow: list[str], deny: list[str]
) -> None:
    assert readers(file, folders, People()) == AccessRule.of(allow, deny)


@as_root
def test_owner_rights_follow_owner_group_and_mode_of_files_and_folders(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for name in ("open.md", "group.md", "own.md", "shut/open.md", "ruled.md"):
        os.chown(put(tmp_path / name), 1, 12)  # daemon, and man's group
    os.chmod(tmp_path / "open.md", 0o644)
    os.chmod(tmp_path / "group.md", 0o640)
    os.chmod(tmp_path / "own.md", 0o600)
    os.chmod(tmp_path / "shut" / "open.md", 0o644)
    os.chown(tmp_path / "shut", 1, 12)
    os.chmod(tmp_path / "shut", 0o750)
    put(tmp_path / "acl.yaml", "- {path: ruled.md, allow: ['group:hr']}")
    found = {name: entry.ref.rule for name, entry in listed(tmp_path, owner_rights=True).items()}
    assert found == {
        "open.md": AccessRule.of(["user:daemon", "group:man", "everyone"]),
        "group.md": AccessRule.of(["user:daemon", "group:man"]),
        "own.md": AccessRule.of(["user:daemon"]),
        "shut/open.md": AccessRule.of(["user:daemon", "group:man"]),
        "ruled.md": AccessRule.of(["group:hr"]),
    }
    for name in found:
        assert looked(tmp_path, name, owner_rights=True) == [listed(tmp_path, owner_rights=True)[name]]
    assert listed(tmp_path / "own.md", owner_rights=True)["own.md"].ref.rule == AccessRule.of(["user:daemon"])


@as_root
def test_file_with_an_access_control_list_is_its_owners_alone(tmp_path: Path) -> None:
    path = put(tmp_path / "a.md")
    os.chmod(path, 0o600)
    # user::rw-, user:daemon:r--, group::---, mask::r--, other::---; the mode then shows the group as reading.
    fields = [(0x01, 6, -1), (0x02, 4, 1), (0x04, 0, -1), (0x10, 4, -1), (0x20, 0, -1)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *field) for field in fields)
    try:
        os.setxattr(path, "system.posix_acl_access", value)
    except OSError as error:
        pytest.skip(f"no access control lists here: {error.strerror}")
    assert path.stat().st_mode & 0o777 == 0o640
    assert listed(tmp_path, owner_rights=True)["a.md"].ref.rule == AccessRule.of(["user:root"])


@as_root
def test_without_owner_rights_the_mode_says_nothing(tmp_path: Path) -> None:
    os.chmod(put(tmp_path / "a.md"), 0o600)
    assert listed(tmp_path)["a.md"].ref.rule == ALL


def test_with_owner_rights_what_cannot_be_told_is_nobodys(tmp_path: Path) -> None:
    put(tmp_path / "a.md")
    (tmp_path / "fifo").touch()
    os.remove(tmp_path / "fifo")
    with open(os.fsencode(tmp_path) + b"/bad\xff.md", "wb"):
        pass
    [bad] = [entry for entry in listed(tmp_path, owner_rights=True).values() if entry.error]
    assert bad.ref.rule == NOBODY


# ---- watch


@asynccontextmanager
async def watching(source: FilesystemConnector) -> AsyncIterator[asyncio.Queue[tuple[str, ...]]]:
    """Yield a queue of what the watch says, once it stands."""
    told: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()

    async def follow() -> None:
        async for ids in source.watch():
            told.put_nowait(tuple(ids))

    task = asyncio.create_task(follow())
    try:
        assert await asyncio.wait_for(told.get(), 10) == ()
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def last(watch: AsyncIterator[Sequence[str]]) -> None:
    async for _ in watch:
        pass


async def until(told: asyncio.Queue[tuple[str, ...]], wanted: Callable[[set[str], bool], bool]) -> float:
    """Wait until what was told, all together, will do; give the seconds. `wanted` gets the ids, and "list" was said."""
    began, ids, is_list = time.monotonic(), set[str](), False
    while not wanted(ids, is_list):
        said = await asyncio.wait_for(told.get(), 10)
        ids |= set(said)
        is_list |= not said
    return time.monotonic() - began


@pytest.mark.parametrize("polling", [False, True])
def test_watch_tells_what_was_saved_changed_renamed_and_removed(tmp_path: Path, polling: bool) -> None:
    async def scene() -> list[float]:
        put(tmp_path / "a" / "x.md")
        took = []
        async with watching(connector(tmp_path, force_polling=polling)) as told:
            put(tmp_path / "new.md")
            took.append(await until(told, lambda ids, _: "new.md" in ids))
            put(tmp_path / "a" / "x.md", "y")  # as long as it was
            took.append(await until(told, lambda ids, _: "a/x.md" in ids))
            os.utime(put(tmp_path / ".tmp"), (20, 20))  # older than what it replaces
            os.replace(tmp_path / ".tmp", tmp_path / "new.md")
            took.append(await until(told, lambda ids, _: "new.md" in ids))
            (tmp_path / "a").rename(tmp_path / "b")
            took.append(await until(told, lambda ids, _: {"a", "b"} <= {each.split("/")[0] for each in ids}))
            (tmp_path / "new.md").unlink()
            took.append(await until(told, lambda ids, _: "new.md" in ids))
        return took

    took = sorted(asyncio.run(scene()))
    assert took[len(took) // 2] < 1.5


def test_watch_asks_for_a_listing_when_rules_change_and_is_silent_on_what_is_left_out(tmp_path: Path) -> None:
    async def scene() -> None:
        put(tmp_path / "a" / "x.md")
        async with watching(connector(tmp_path)) as told:
            put(tmp_path / ".git" / "index")
            put(tmp_path / "a" / ".x.md.swp")
            put(tmp_path / "a" / "acl.yaml", "[]")
            assert await asyncio.wait_for(told.get(), 10) == ()
            put(tmp_path / "a" / "y.md")
            assert await asyncio.wait_for(told.get(), 10) == ("a/y.md",)

    asyncio.run(scene())


def test_watch_sees_folders_come_whole_and_rights_change(tmp_path: Path) -> None:
    async def scene() -> None:
        put(tmp_path / "outside" / "deep" / "x.md")
        root = tmp_path / "root"
        root.mkdir()
        source = connector(root)
        async with watching(source) as told:
            (tmp_path / "outside").rename(root / "in")
            await until(told, lambda ids, _: "in" in ids)
            assert set(entries(list(source.look(["in"])))) == {"in/deep/x.md"}
            os.chmod(root / "in", 0o700)
            await until(told, lambda ids, _: "in" in ids)
            put(root / "in" / "deep" / "y.md")
            await until(told, lambda ids, _: "in/deep/y.md" in ids)

    asyncio.run(scene())


def test_watch_of_one_file_sees_it_replaced(tmp_path: Path) -> None:
    async def scene() -> None:
        rows(tmp_path / "d.jsonl", "1")
        async with watching(connector(tmp_path / "d.jsonl")) as told:
            put(tmp_path / "other.md")
            os.replace(rows(tmp_path / ".new", "1", "2"), tmp_path / "d.jsonl")
            await until(told, lambda _, is_list: is_list)

    asyncio.run(scene())


def test_watch_of_a_source_that_goes_says_so_and_follows_a_link_to_its_next_place(tmp_path: Path) -> None:
    async def scene() -> None:
        for release in ("1", "2"):
            (tmp_path / release).mkdir()
        current = tmp_path / "current"
        current.symlink_to("1")
        async with watching(connector(current)) as told:
            (tmp_path / "next").symlink_to("2")
            os.replace(tmp_path / "next", current)
            await until(told, lambda _, is_list: is_list)
            put(tmp_path / "2" / "x.md")
            await until(told, lambda ids, _: "x.md" in ids)
        watch = aiter(connector(current).watch())
        assert await anext(watch) == ()
        shutil.rmtree(tmp_path / "2")
        with pytest.raises(SourceUnavailable):
            await asyncio.wait_for(last(watch), 10)
        with pytest.raises(SourceUnavailable):
            await anext(aiter(connector(tmp_path / "none").watch()))

    asyncio.run(scene())


def test_cancelled_watch_ends_at_once_and_leaves_no_thread(tmp_path: Path) -> None:
    import threading

    async def scene() -> float:
        async with watching(connector(tmp_path)):
            pass
        task = asyncio.create_task(anext(aiter(connector(tmp_path).watch())))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return time.monotonic() - began

    assert asyncio.run(scene()) < 0.5
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("watch") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["/r/a.md", "/r/b/c.md"], ("a.md", "b/c.md")),
        (["/r/.git/x", "/r/a/.x"], None),
        (["/r/a.md", "/r/b/acl.yaml"], ()),
        (["/r/ACL.yml"], ()),
        (["/r/.git/acl.yaml"], None),
        (["/r"], ()),
        ([], None),
    ],
)
def test_changed_paths_become_ids(paths: list[str], ids: tuple[str, ...] | None) -> None:
    assert ids_to_look_at(paths, "/r") == ids
