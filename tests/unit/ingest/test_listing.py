from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from index.document import DocumentRef
from ingest.connector import Connector, Entry, Unreadable
from ingest.connectors.store_tree import is_link
from ingest.place import place_settings
from ingest.sources import open_connector
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

DEFAULT = AccessRule.of(["group:all"])


def place(uri: str | Path) -> Connector:
    return open_connector(place_settings(str(uri), "acme", "files", DEFAULT))


def stream(uri: str | Path) -> Iterator[Entry]:
    return (item for item in place(uri).list(None) if isinstance(item, Entry))


def listed(uri: str | Path) -> list[Entry]:
    return list(stream(uri))


def read(entry: Entry | str, max_bytes: int, uri: str = "/") -> bytes:
    """Fetch by an entry, or by the path that it gave as its location."""
    if isinstance(entry, str):
        entry = Entry(DocumentRef("acme", "files", "x", "x", None, "", DEFAULT), location=entry)
    return place(uri).fetch(entry, max_bytes)


def by_id(uri: str | Path) -> dict[str, Entry]:
    entries = listed(uri)
    assert len({entry.ref.external_id for entry in entries}) == len(entries)
    return {entry.ref.external_id: entry for entry in entries}


def rows(path: Path, *lines: object) -> Path:
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
    return path


def test_directory_lists_files_by_relative_path_in_order(tmp_path: Path) -> None:
    for name in ("b.md", "a dir/z.txt", "a dir/deep/y.pdf", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    entries = listed(tmp_path)
    assert [entry.ref.external_id for entry in entries] == ["a dir/deep/y.pdf", "a dir/z.txt", "b.md", "c.txt"]
    entry = entries[0]
    assert entry.ref.uri == f"{tmp_path}/a dir/deep/y.pdf"
    assert (entry.ref.tenant, entry.ref.source, entry.ref.rule) == ("acme", "files", DEFAULT)
    assert entry.ref.size_bytes == len("a dir/deep/y.pdf")
    assert entry.location is not None
    assert read(entry, 100) == b"a dir/deep/y.pdf"
    assert listed(tmp_path) == entries


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_forms_of_a_directory_uri_give_the_same_documents(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.md").write_text("x")
    entry = listed(form.format(tmp_path))[0]
    assert entry.ref.external_id == "a.md"
    assert entry.ref.uri.endswith("/a.md")


def test_single_file_is_known_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    entry = listed(tmp_path / "a.md")[0]
    assert entry.ref.external_id == "a.md"
    assert entry.ref.uri.endswith("a.md")
    assert entry.error is None


def test_listing_opens_no_document(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "a.md").chmod(0)
    assert listed(tmp_path)[0].error is None


def test_listing_streams(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "b").mkdir()
    items = place(tmp_path).list(None)
    first = next(items)
    assert isinstance(first, Entry) and first.ref.external_id == "a.md"
    (tmp_path / "b" / "acl.yaml").write_text("broken: [")  # and only now it is read
    assert isinstance(next(items), Unreadable)


def test_hidden_files_acl_and_litter_are_no_documents(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    for name in (".hidden.md", "~$open.docx", "Thumbs.db", "seen.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / "acl.yaml").write_text("[]")
    assert list(by_id(tmp_path)) == ["seen.md"]


def test_fingerprint_changes_with_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    first = listed(tmp_path)[0].ref.fingerprint
    os.utime(file, ns=(1, 2))
    second = listed(tmp_path)[0].ref.fingerprint
    file.write_text("three")
    os.utime(file, ns=(1, 2))
    assert len({first, second, listed(tmp_path)[0].ref.fingerprint}) == 3


def test_acl_file_rules_files_and_leaves_the_rest_to_the_default(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "pay.md").write_text("x")
    (tmp_path / "open.md").write_text("x")
    (tmp_path / "acl.yaml").write_text("- {path: 'hr/**', allow: ['group:hr']}")
    found = by_id(tmp_path)
    assert found["hr/pay.md"].ref.rule == AccessRule.of(["group:hr"])
    assert found["open.md"].ref.rule == DEFAULT


def test_deeper_acl_file_wins_and_speaks_for_its_folder_only(tmp_path: Path) -> None:
    (tmp_path / "hr" / "in").mkdir(parents=True)
    for name in ("hr/in/a.md", "hr/b.md", "a.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / "acl.yaml").write_text("- {path: '**', allow: [everyone]}")
    (tmp_path / "hr" / "acl.yaml").write_text("- {path: 'in/*', allow: ['group:hr']}")
    found = by_id(tmp_path)
    assert found["hr/in/a.md"].ref.rule == AccessRule.of(["group:hr"])
    assert found["hr/b.md"].ref.rule == found["a.md"].ref.rule == AccessRule.of(["everyone"])


@pytest.mark.parametrize("name", ["acl.yaml", "acl.yml", "ACL.yaml"])
def test_broken_or_misnamed_acl_file_fails_the_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / name).write_text("- {path: a, alow: []}")
    with pytest.raises(ConfigurationError):
        listed(tmp_path)


def test_acl_file_in_a_folder_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "hr").mkdir()
    (tmp_path / "hr" / "acl.yaml").write_text("- {path: a, alow: []}")
    [unreadable, _] = place(tmp_path).list(None)
    assert isinstance(unreadable, Unreadable) and unreadable.reason.startswith("hr/acl.yaml: entry 1")


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "real" / "a.md").write_text("x")
    (root / "file-out.md").symlink_to(outside / "secret.md")
    (root / "dir-out").symlink_to(outside)
    (root / "file-in.md").symlink_to(root / "real" / "a.md")
    (root / "dir-in").symlink_to(root / "real")
    (root / "loop").symlink_to(root)
    (root / "circle").symlink_to("circle")
    (root / "broken.md").symlink_to(root / "none.md")
    found = by_id(root)
    assert found["file-out.md"].error == found["dir-out"].error == "points outside the source"
    assert found["file-in.md"].error == "a link; its target is listed where it is"
    assert found["broken.md"].error == "a link to nothing"
    assert found["circle"].error == "cannot be read: Too many levels of symbolic links"
    assert set(found) == {"real/a.md", "file-in.md", "file-out.md", "dir-out", "broken.md", "circle"}
    assert [name for name, entry in found.items() if entry.location or entry.inline] == ["real/a.md"]


def test_a_link_publishes_nobody_elses_file(tmp_path: Path) -> None:
    for folder in ("public", "secret"):
        (tmp_path / folder).mkdir()
    (tmp_path / "secret" / "pay.txt").write_text("secret")
    rows(tmp_path / "secret" / "pay.jsonl", {"id": "1", "text": "secret"})
    (tmp_path / "acl.yaml").write_text(
        "- {path: 'public/**', allow: [everyone]}\n- {path: 'secret/**', allow: ['group:hr']}"
    )
    for name in ("pay.txt", "pay.jsonl"):
        (tmp_path / "public" / name).symlink_to(f"../secret/{name}")
    shown = [e for e in listed(tmp_path) if e.ref.rule == AccessRule.of(["everyone"])]
    assert [e.ref.external_id for e in shown] == ["public/pay.jsonl", "public/pay.txt"]
    assert all(e.error and e.location is None and e.inline is None for e in shown)


def test_the_source_itself_may_be_given_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.md").write_text("x")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "file.md").symlink_to("real/a.md")
    for uri, name in (("folder", "a.md"), ("file.md", "file.md")):
        entry = by_id(tmp_path / uri)[name]
        assert entry.location is not None
        assert read(entry, 10) == b"x"


def test_folder_swapped_for_a_link_after_the_listing_is_not_followed(tmp_path: Path) -> None:
    for folder in ("public", "secret"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.md").write_text(folder)
    location = by_id(tmp_path)["public/a.md"].location
    assert location is not None
    (tmp_path / "public").rename(tmp_path / "was")
    (tmp_path / "public").symlink_to("secret")
    with pytest.raises(SourceUnavailable):
        read(location, 1000)


def test_links_of_other_file_systems_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "link.md").symlink_to("a.md")
    (tmp_path / "loop").symlink_to(".")
    info = fsspec.filesystem("file").ls
    for item in info(str(tmp_path), detail=True):
        assert is_link(item) is (item["name"].rpartition("/")[2] != "a.md")
    assert by_id(f"local://{tmp_path}").keys() == {"a.md", "link.md"}


def test_file_whose_name_looks_like_a_url_is_read_from_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "zip::memory:").mkdir()
    (tmp_path / "zip::memory:" / "a.md").write_text("x")
    assert read(listed(tmp_path)[0], 10) == b"x"


def test_file_swapped_for_a_link_after_the_listing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    location = listed(tmp_path)[0].location
    assert location is not None
    (tmp_path / "a.md").unlink()
    (tmp_path / "a.md").symlink_to("/etc/hostname")
    with pytest.raises(SourceUnavailable):
        read(location, 1000)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "device", "outside", "large", "folder"])
def test_acl_file_that_is_no_plain_file_of_the_source_fails_the_run_at_once(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.md").write_text("x")
    acl, outside = root / "acl.yaml", tmp_path / "outside"
    outside.write_text("password: hunter2 {{{ : ]")
    if kind == "pipe":
        os.mkfifo(acl)
    elif kind == "folder":
        acl.mkdir()
    elif kind == "large":
        with acl.open("wb") as stream:
            stream.truncate(1_000_000_000_000)
    else:
        acl.symlink_to("/dev/zero" if kind == "device" else outside)
    with pytest.raises(ConfigurationError, match=r"^acl\.yaml: ") as caught:
        listed(root)
    assert "hunter2" not in caught.value.detail


def test_remote_acl_file_is_read_up_to_its_limit() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/rights/a.md", b"x")
    files.pipe("/rights/acl.yaml", b"#" * 1_000_001)
    try:
        with pytest.raises(ConfigurationError, match=r"^acl\.yaml: larger than 1000000 bytes"):
            listed("memory://rights")
    finally:
        files.rm("/rights", recursive=True)


def test_pipe_is_an_error_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert listed(tmp_path)[0].error == "no regular file"
    with pytest.raises(DocumentRejected):
        read(str(tmp_path / "pipe.md"), 10)


def test_name_that_is_not_utf8_is_an_error_entry(tmp_path: Path) -> None:
    (tmp_path / "ok.md").write_text("x")
    with open(os.fsencode(tmp_path) + b"/bad\xff.md", "wb"):
        pass
    entries = listed(tmp_path)
    assert [entry.error for entry in entries if entry.ref.external_id != "ok.md"] == ["the file's name is not UTF-8"]
    for entry in entries:
        entry.ref.external_id.encode()
        entry.ref.uri.encode()


def test_missing_source_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        listed(tmp_path / "none")


def test_unknown_kind_of_url_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        listed("nonsense://x/y")


def test_jsonl_rows_are_documents_with_rights_of_their_own(tmp_path: Path) -> None:
    path = rows(
        tmp_path / "d.jsonl",
        {"id": "1", "text": "One\r\n\u0000two", "title": "T", "uri": "https://x/1", "metadata": {"k": 1}},
        {"id": "2", "text": "b", "acl": ["group:x"]},
        {"id": "3", "text": "c", "acl": {"allow": ["everyone"], "deny": ["user:eve"]}},
        {"id": "4", "text": "d", "acl": []},
    )
    found = by_id(path)
    one = found["1"]
    assert one.inline is not None
    assert (one.inline.text, one.inline.title, one.inline.metadata) == ("One\ntwo", "T", {"k": 1})
    assert (one.ref.uri, one.ref.title, one.ref.rule) == ("https://x/1", "T", DEFAULT)
    assert found["2"].ref.rule == AccessRule.of(["group:x"])
    assert found["2"].ref.uri.endswith("d.jsonl")
    assert found["3"].ref.rule == AccessRule.of(["everyone"], ["user:eve"])
    assert found["4"].ref.rule == AccessRule()


def test_row_fingerprint_follows_content_and_not_rights(tmp_path: Path) -> None:
    def fingerprint(row: dict[str, object]) -> str:
        return listed(rows(tmp_path / "d.jsonl", row))[0].ref.fingerprint

    first = fingerprint({"id": "1", "text": "a"})
    assert fingerprint({"id": "1", "text": "a", "acl": ["everyone"]}) == first
    assert fingerprint({"id": "1", "text": "b"}) != first
    assert fingerprint({"id": "1", "text": "a", "title": "t"}) != first


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "no valid JSON"),
        (b'{"id": "x", "text": "\xff"}', "no valid JSON"),
        (b"[1]", "row:"),
        ({"text": "t"}, "id: Field required"),
        ({"id": "x"}, "text: Field required"),
        ({"id": 7, "text": "t"}, "id: "),
        ({"id": "", "text": "t"}, "id: "),
        ({"id": "x", "text": "  "}, "text is empty"),
        ({"id": "x", "text": None}, "text: "),
        ({"id": "x", "text": "t", "acl": "everyone"}, "acl must be"),
        ({"id": "x", "text": "t", "acl": None}, "acl must be"),
        ({"id": "x", "text": "t", "acl": ["finance"]}, "no principal"),
        ({"id": "x", "text": "t", "acl": {"alow": ["everyone"]}}, "unknown key 'alow'"),
        (
            {"id": "x", "text": "t", "acls": ["everyone"]},
            "acls: Extra inputs are not permitted; allowed here: id, text",
        ),
    ],
)
def test_bad_row_is_quarantined_with_its_line_and_neighbours_go_on(tmp_path: Path, line: object, reason: str) -> None:
    path = rows(tmp_path / "d.jsonl", {"id": "a", "text": "t"}, b"", line, {"id": "z", "text": "t"})
    entries = listed(path)
    assert [entry.error is None for entry in entries] == [True, False, True]
    error = entries[1].error
    assert error is not None
    assert error.startswith("line 3: ")
    assert reason in error
    assert entries[1].inline is None


@pytest.mark.parametrize(
    ("row", "readers"),
    [
        ({"id": "x", "text": "t", "acl": "everyone"}, NOBODY),
        ({"id": "x", "text": "t", "acl": ["finance"]}, NOBODY),
        ({"id": "x", "text": "t", "acls": ["group:hr"]}, NOBODY),
        ({"id": "x", "text": " ", "acl": ["finance"]}, NOBODY),
        ({"id": "x", "text": " ", "acl": ["group:hr"]}, AccessRule.of(["group:hr"])),
        ({"id": "x", "text": 3, "acl": ["group:hr"]}, AccessRule.of(["group:hr"])),
        ({"id": "x", "text": 3}, DEFAULT),
        (b"{", NOBODY),
    ],
)
def test_bad_row_carries_the_rule_it_names_and_nobody_where_that_is_in_doubt(
    tmp_path: Path, row: object, readers: AccessRule
) -> None:
    [entry] = listed(rows(tmp_path / "d.jsonl", row))
    assert entry.error is not None
    assert entry.ref.rule == readers


def test_second_row_with_an_id_is_an_error(tmp_path: Path) -> None:
    path = rows(tmp_path / "d.jsonl", {"id": "a", "text": "first"}, {"id": "a", "text": "second"})
    found = by_id(path)
    assert found["a"].inline is not None
    assert found["a"].inline.text == "first"
    assert found["line-2"].error == "line 2: id 'a' is taken by a line above"


def test_overlong_row_is_skipped_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.rows.MAX_ROW_BYTES", 200)
    path = rows(tmp_path / "d.jsonl", {"id": "a", "text": "x" * 5000}, {"id": "b", "text": "t"})
    found = by_id(path)
    assert found["line-1"].error == "line 1: longer than 200 bytes"
    assert found["b"].error is None


def test_byte_order_mark_before_the_first_row_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'\xef\xbb\xbf{"id": "a", "text": "t"}\r\n')
    assert listed(tmp_path / "d.jsonl")[0].error is None


def test_jsonl_in_a_directory_is_expanded_under_its_path(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    rows(tmp_path / "sub" / "d.jsonl", {"id": "1", "text": "a"})
    (tmp_path / "acl.yaml").write_text("- {path: 'sub/*', allow: ['group:sub']}")
    entry = by_id(tmp_path)["sub/d.jsonl#1"]
    assert entry.ref.rule == AccessRule.of(["group:sub"])


def test_any_fsspec_url_is_a_source() -> None:
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/b.md", b"text")
    files.pipe("/bucket/sub/a.md", b"x")
    files.pipe("/bucket/.hidden", b"x")
    files.pipe("/bucket/rows.jsonl", b'{"id": "1", "text": "t"}')
    files.pipe("/bucket/acl.yaml", b"- {path: 'sub/**', allow: ['group:sub']}")
    try:
        found = by_id("memory://bucket")
        assert list(found) == ["b.md", "rows.jsonl#1", "sub/a.md"]
        assert found["sub/a.md"].ref.rule == AccessRule.of(["group:sub"])
        assert found["b.md"].ref.uri == "memory://bucket/b.md"
        assert read(found["b.md"], 4, "memory://bucket") == b"text"
        with pytest.raises(TooLarge):
            read(found["b.md"], 3, "memory://bucket")
        assert [entry.ref.external_id for entry in listed("memory://bucket/b.md")] == ["b.md"]
        assert listed("memory://bucket") == list(found.values())
        files.rm("/bucket/b.md")
        with pytest.raises(DocumentRejected, match="deleted while reading"):
            read(found["b.md"], 10, "memory://bucket")
        with pytest.raises(SourceUnavailable):
            listed("memory://nothing")
    finally:
        files.rm("/bucket", recursive=True)


def test_huge_file_is_refused_by_its_size_without_reading(tmp_path: Path) -> None:
    path = tmp_path / "sparse.pdf"
    with path.open("wb") as stream:
        stream.truncate(1_000_000_000)
    with pytest.raises(TooLarge, match="larger than 100 MB"):
        read(listed(path)[0], 100_000_000)


def test_file_deleted_after_the_listing_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DocumentRejected, match="deleted while reading"):
        read(str(tmp_path / "gone.md"), 10)


def test_many_files_are_listed_quickly(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.md").touch()
    assert len(listed(tmp_path)) == 2000
