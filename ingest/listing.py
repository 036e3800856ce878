"""What a source holds: a URI becomes a stream of documents, named but not read.

A source is a directory, a file, a `*.jsonl` with one document a line, or any fsspec URL of these. Files are known by
their path relative to the source, rows by their `id` (in a JSONL that lies in a directory: `<path>#<id>`). Left out:
hidden files and folders, `acl.yaml`, and what office programs and desktops leave behind. Links are followed to files
of the same source only. `acl.yaml` may lie in any folder and speaks for what is under it; a deeper one wins.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index.document import DocumentRef
from ingest.acl_file import ACL_FILE, AclFile, rule_of
from ingest.cleaning import clean, usable_title
from policies.access import AccessRule
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

MAX_ROW_BYTES = 64_000_000
_CHANGED = ("LastModified", "mtime", "updated", "last_modified", "created")
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True, slots=True)
class InlineDocument:
    """A document whose text came with the listing (a JSONL row). The text is clean as a parser's is."""

    title: str | None
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One document of a source.

    `location` is what `read` takes, `inline` the content where no file holds it; neither where `error` says why the
    document cannot be indexed. The `external_id` of a row without a usable id of its own is `line-<number>`.
    """

    ref: DocumentRef
    location: str | None = None
    inline: InlineDocument | None = None
    error: str | None = None


class _Row(BaseModel):
    """A line of a JSONL. Unknown keys are errors: a misspelt `acl` must not fall back to a wider rule."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str = Field(min_length=1, max_length=1024)
    text: str = Field(min_length=1)
    title: str | None = None
    uri: str | None = None
    acl: list[str] | dict[str, list[str]] = Field(default_factory=list)
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    tenant: str
    name: str
    rule: AccessRule

    def ref(self, external_id: str, uri: str, rule: AccessRule, fingerprint: str = "", size: int = 0) -> DocumentRef:
        return DocumentRef(self.tenant, self.name, external_id, uri, None, fingerprint, rule, size)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The `acl.yaml` files above a path, outermost first, each with the folder it lies in."""

    default: AccessRule
    files: tuple[tuple[str, AclFile], ...] = ()

    def within(self, folder: str, acl: AclFile) -> _Rules:
        return replace(self, files=(*self.files, (folder, acl)))

    def rule_for(self, path: str) -> AccessRule:
        for folder, acl in reversed(self.files):
            rule = acl.rule_for(path[len(folder) :])
            if rule is not None:
                return rule
        return self.default


def list_source(uri: str, tenant: str, source_name: str, default_rule: AccessRule) -> Iterator[Entry]:
    """Yield a source's documents in a fixed order, as they are found; no file but JSONL and `acl.yaml` is opened.

    Raises `SourceUnavailable` where the source, or a folder of it, cannot be listed (what was not seen is not gone),
    and `ConfigurationError` for a broken `acl.yaml` or a URI of an unknown kind.
    """
    source = _Source(tenant, source_name, default_rule)
    local = _local_path(uri)
    if local is None:
        yield from _list_remote(uri, source)
    elif local.is_dir():
        yield from _walk(local, local.resolve(), "", uri.rstrip("/"), source, _Rules(default_rule))
    elif local.exists():
        yield from _local_file(local, local.resolve().parent, local.name, uri, source, default_rule, alone=True)
    else:
        raise SourceUnavailable(f"{uri}: no such file or folder")


def read(location: str, max_bytes: int) -> bytes:
    """Fetch a document's bytes.

    Raises `TooLarge` over `max_bytes` (without reading it where its size is known), `DocumentRejected` where it is gone
    or may not be read, `SourceUnavailable` where its source cannot be reached.
    """
    local = _local_path(location)
    try:
        data = _read_local(local, max_bytes) if local is not None else _read_remote(location, max_bytes)
    except FileNotFoundError as error:
        raise DocumentRejected("deleted while reading") from error
    except PermissionError as error:
        raise DocumentRejected("no permission to read it") from error
    except OSError as error:
        raise SourceUnavailable(f"cannot be read: {error.strerror or type(error).__name__}") from error
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the file is larger than {max_bytes / 1_000_000:g} MB")


def _local_path(uri: str) -> Path | None:
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://").removeprefix("localhost"))
    return None if "://" in uri or "::" in uri else Path(uri).expanduser()


# ---- local files ----


def _walk(folder: Path, root: Path, prefix: str, uri: str, source: _Source, rules: _Rules) -> Iterator[Entry]:
    """List one folder, then what lies deeper, by name. `prefix` is the folder's path in the source, ending in `/`."""
    try:
        with os.scandir(folder) as scan:
            items = sorted(scan, key=lambda item: item.name)
    except FileNotFoundError:
        if not prefix:
            raise SourceUnavailable(f"{uri}: the folder is gone") from None
        return
    except OSError as error:
        raise SourceUnavailable(f"{uri}/{prefix}: cannot be listed: {error.strerror}") from error
    names = {item.name for item in items}
    _refuse_misnamed_acl(names, prefix)
    if ACL_FILE in names:
        rules = rules.within(prefix, _parse_acl_file(_read_acl(folder / ACL_FILE), prefix))
    for item in items:
        if _is_left_out(item.name):
            continue
        path = prefix + item.name
        if item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), root, path + "/", uri, source, rules)
        else:
            yield from _local_file(Path(item.path), root, path, f"{uri}/{path}", source, rules.rule_for(path))


def _local_file(
    path: Path, root: Path, name: str, uri: str, source: _Source, rule: AccessRule, alone: bool = False
) -> Iterator[Entry]:
    """The entry of one file, or those of its rows. `alone`: the file is the whole source, rows keep their bare ids."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name, uri = (text.encode("utf-8", "replace").decode() for text in (name, uri))
        yield Entry(source.ref(name, uri, rule), error="the file's name is not UTF-8")
        return
    try:
        status = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            yield Entry(source.ref(name, uri, rule), error="a link to nothing")
        return
    except OSError as error:
        yield Entry(source.ref(name, uri, rule), error=f"cannot be read: {error.strerror}")
        return
    real = path.resolve()
    if not alone and not real.is_relative_to(root):
        yield Entry(source.ref(name, uri, rule), error="points outside the source")
    elif stat.S_ISDIR(status.st_mode):
        return  # a link to a folder of this source: its files are listed where they are
    elif not stat.S_ISREG(status.st_mode):
        yield Entry(source.ref(name, uri, rule), error="no regular file")
    elif name.lower().endswith(".jsonl"):
        with _open_local(real, uri) as stream:
            yield from _rows(stream, "" if alone else f"{name}#", uri, source, rule)
    else:
        fingerprint = f"{status.st_size}-{status.st_mtime_ns}"
        yield Entry(source.ref(name, uri, rule, fingerprint, status.st_size), location=str(real))


def _open_local(path: Path, uri: str) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceUnavailable(f"{uri}: cannot be read: {error.strerror}") from error


def _read_local(path: Path, max_bytes: int) -> bytes:
    # The listing resolved links: one that stands here now was put in place since.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DocumentRejected("no regular file")
        if status.st_size > max_bytes:
            raise _too_large(max_bytes)
        return stream.read(max_bytes + 1)


# ---- fsspec ----


def _list_remote(uri: str, source: _Source) -> Iterator[Entry]:
    system, path = _filesystem(uri)
    info = _reach(uri, lambda: system.info(path))
    if info["type"] == "directory":
        yield from _walk_remote(system, path.rstrip("/"), "", uri.rstrip("/"), source, _Rules(source.rule))
    else:
        yield from _remote_file(system, info, PurePosixPath(path).name, uri, source, source.rule, alone=True)


def _walk_remote(system: Any, folder: str, prefix: str, uri: str, source: _Source, rules: _Rules) -> Iterator[Entry]:
    found = _reach(uri, lambda: system.ls(folder, detail=True))
    items = {PurePosixPath(item["name"]).name: item for item in found if item["name"].rstrip("/") != folder}
    _refuse_misnamed_acl(set(items), prefix)
    if ACL_FILE in items:
        data = _reach(uri, lambda: system.cat_file(items[ACL_FILE]["name"]))
        rules = rules.within(prefix, _parse_acl_file(data, prefix))
    for name in sorted(items):
        if _is_left_out(name):
            continue
        item, path = items[name], prefix + name
        if item["type"] == "directory":
            yield from _walk_remote(system, item["name"].rstrip("/"), path + "/", uri, source, rules)
        else:
            yield from _remote_file(system, item, path, f"{uri}/{path}", source, rules.rule_for(path))


def _remote_file(
    system: Any, info: dict[str, Any], name: str, uri: str, source: _Source, rule: AccessRule, alone: bool = False
) -> Iterator[Entry]:
    if name.lower().endswith(".jsonl"):
        with _reach(uri, lambda: system.open(info["name"], "rb")) as stream:
            yield from _rows(stream, "" if alone else f"{name}#", uri, source, rule)
        return
    version = next((info[key] for key in ("ETag", "etag", "md5Hash", "version_id") if info.get(key)), None)
    changed = next((info[key] for key in _CHANGED if key in info), "")
    size = int(info.get("size") or 0)
    fingerprint = f"{size}-{str(version).strip(chr(34)) if version else changed}"
    location = str(system.unstrip_protocol(info["name"]))
    yield Entry(source.ref(name, uri, rule, fingerprint, size), location=location)


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(uri)
    except ImportError as error:
        raise ConfigurationError(f"{uri}: install what reads this kind of URL: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{uri}: {error}") from error
    system.invalidate_cache()
    return system, path


def _reach(uri: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        raise SourceUnavailable(f"{uri}: cannot be reached: {type(error).__name__}") from error


def _read_remote(location: str, max_bytes: int) -> bytes:
    system, path = _filesystem(location)
    try:
        size = system.info(path).get("size")
        if size is not None and size > max_bytes:
            raise _too_large(max_bytes)
        with system.open(path, "rb") as stream:
            return bytes(stream.read(max_bytes + 1))
    except (OSError, TooLarge):
        raise
    except Exception as error:
        raise SourceUnavailable(f"cannot be read: {type(error).__name__}") from error


# ---- rights ----


def _is_left_out(name: str) -> bool:
    return name.startswith((".", "~$")) or name == ACL_FILE or name.lower() in _LITTER


def _refuse_misnamed_acl(names: set[str], prefix: str) -> None:
    for name in names:
        if name != ACL_FILE and name.lower() in ("acl.yaml", "acl.yml"):
            raise ConfigurationError(f"{prefix}{name}: access rules must be in a file named {ACL_FILE}")


def _read_acl(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{ACL_FILE}: cannot be read: {error.strerror}") from error


def _parse_acl_file(data: bytes, prefix: str) -> AclFile:
    try:
        return AclFile.parse(data)
    except ConfigurationError as error:
        raise ConfigurationError(prefix + error.detail) from error


# ---- JSONL ----


def _rows(stream: IO[bytes], prefix: str, uri: str, source: _Source, rule: AccessRule) -> Iterator[Entry]:
    seen: set[bytes] = set()

    def claim(external_id: str | None) -> bool:
        """Whether this is the first line with that id."""
        digest = hashlib.blake2b((external_id or "").encode(), digest_size=16).digest()
        first = external_id is not None and digest not in seen
        seen.add(digest)
        return first

    for number, line in _numbered_lines(stream, uri):
        if line is not None and not line.strip():
            continue
        external_id, reason = f"line-{number}", f"longer than {MAX_ROW_BYTES} bytes"
        if line is not None:
            row, reason = _parse_row(line)
            named = row.id if row else _id_of(line)
            if claim(named):
                external_id = named or external_id
            elif row:
                reason = f"id {row.id[:100]!r} is taken by a line above"
                row = None
            if row:
                yield _row_entry(row, prefix + external_id, number, uri, source, rule)
                continue
        yield _bad_row(prefix + external_id, number, reason, uri, source, rule)


def _parse_row(line: bytes) -> tuple[_Row | None, str]:
    try:
        return _Row.model_validate_json(line), ""
    except ValidationError as error:
        return None, _reason(error)


def _numbered_lines(stream: IO[bytes], uri: str) -> Iterator[tuple[int, bytes | None]]:
    """Lines from 1 on; none for one that is too long."""
    number = 0
    while line := _reach(uri, lambda: stream.readline(MAX_ROW_BYTES + 1)):
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) <= MAX_ROW_BYTES:
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = _reach(uri, lambda: stream.readline(MAX_ROW_BYTES))
        yield number, None


def _row_entry(row: _Row, external_id: str, number: int, uri: str, source: _Source, rule: AccessRule) -> Entry:
    text = clean(row.text)
    if not text.strip():
        return _bad_row(external_id, number, "text is empty", uri, source, rule)
    if "acl" in row.model_fields_set:
        try:
            rule = rule_of(row.acl)
        except ConfigurationError as error:
            return _bad_row(external_id, number, error.detail, uri, source, rule)
    content = json.dumps([row.title, row.text, row.uri, row.metadata], sort_keys=True, ensure_ascii=False)
    fingerprint = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
    title = usable_title(row.title) or (clean(row.title).strip() or None if row.title else None)
    ref = source.ref(external_id, row.uri or uri, rule, fingerprint, len(row.text.encode("utf-8", "replace")))
    return Entry(replace(ref, title=title), inline=InlineDocument(title, text, row.metadata or {}))


def _bad_row(external_id: str, number: int, reason: str, uri: str, source: _Source, rule: AccessRule) -> Entry:
    return Entry(source.ref(external_id, uri, rule), error=f"line {number}: {reason}")


def _id_of(line: bytes) -> str | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    external_id = row.get("id") if isinstance(row, dict) else None
    if not isinstance(external_id, str) or not 0 < len(external_id) <= 1024 or "\x00" in external_id:
        return None
    return external_id.encode("utf-8", "replace").decode()


def _reason(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return f"no valid JSON: {problem['msg'].removeprefix('Invalid JSON: ')[:200]}"
    path = ".".join(str(part) for part in problem["loc"][:1]) or "row"
    if path == "acl":
        return "acl must be a list of principals or {allow: [...], deny: [...]}"
    allowed = f"; allowed here: {', '.join(_Row.model_fields)}" if problem["type"] == "extra_forbidden" else ""
    return f"{path}: {problem['msg']}{allowed}"
