"""What a source holds: a URI becomes a stream of documents, named but not read.

A source is a directory, a file, a `*.jsonl` with one document a line, or any fsspec URL of these. Files are known by
their path relative to the source, rows by their `id` (in a JSONL that lies in a directory: `<path>#<id>`). Left out:
hidden files and folders, `acl.yaml`, and what office programs and desktops leave behind. `acl.yaml` may lie in any
folder and speaks for what is under it; a deeper one wins.

No link is followed, or whoever may write to one folder could publish another's files under the rule of their own: a
link is an error, but for one to a folder of the same source, which is left out. Only the source itself may be given
by a link. What stands in the place of a listed file or folder later on is not followed either.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index.document import DocumentRef
from ingest.acl_file import ACL_FILE, AclFile, rule_of
from ingest.acl_file import MAX_BYTES as MAX_ACL_BYTES
from ingest.cleaning import clean, given_title
from ingest.connector import Entry, InlineDocument
from policies.access import NOBODY, AccessRule
from policies.errors import ConfigurationError, DocumentRejected, SourceUnavailable, TooLarge

MAX_ROW_BYTES = 64_000_000
_CHANGED = ("LastModified", "mtime", "updated", "last_modified", "created")
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_LINK = "a link; its target is listed where it is"
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
    local = local_path(uri)
    if local is None:
        yield from _list_remote(uri, source)
    elif local.is_dir():
        root = local.resolve()
        yield from _walk(root, root, "", uri.rstrip("/"), source, _Rules(default_rule))
    elif local.exists():
        path = local.resolve()
        yield from _local_file(path, path.parent, local.name, uri, source, default_rule, alone=True)
    else:
        raise SourceUnavailable(f"{uri}: no such file or folder")


def read(location: str, max_bytes: int) -> bytes:
    """Fetch a document's bytes.

    Raises `TooLarge` over `max_bytes` (without reading it where its size is known), `DocumentRejected` where it is gone
    or may not be read, `SourceUnavailable` where its source cannot be reached.
    """
    local = local_path(location)
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


def local_path(uri: str) -> Path | None:
    """The path that a source's URI or a location names; none for what fsspec reads."""
    for scheme in ("file://", "local://"):
        if uri.startswith(scheme):
            return Path(uri.removeprefix(scheme).removeprefix("localhost"))
    if uri.startswith("/"):
        return Path(uri)  # also where a name in it looks like a URL
    return None if "://" in uri or "::" in uri else Path(uri).expanduser()


# ---- local files ----


def _walk(folder: Path, root: Path, prefix: str, uri: str, source: _Source, rules: _Rules) -> Iterator[Entry]:
    """List one folder, then what lies deeper, by name. `prefix` is the folder's path in the source, ending in `/`."""
    try:
        items = _scan(folder)
    except FileNotFoundError:
        if not prefix:
            raise SourceUnavailable(f"{uri}: the folder is gone") from None
        return
    except OSError as error:
        raise SourceUnavailable(f"{uri}/{prefix}: cannot be listed: {error.strerror}") from error
    _refuse_misnamed_acl(set(items), prefix)
    if ACL_FILE in items:
        rules = rules.within(prefix, _parse_acl_file(_read_acl(folder / ACL_FILE, prefix), prefix))
    for name in sorted(items):
        if _is_left_out(name):
            continue
        path = prefix + name
        if items[name]:
            yield from _walk(folder / name, root, path + "/", uri, source, rules)
        else:
            yield from _local_file(folder / name, root, path, f"{uri}/{path}", source, rules.rule_for(path))


def _scan(folder: Path) -> dict[str, bool]:
    """What lies in a folder, and whether that is a folder itself (a link is none)."""
    with _opened(folder) as above:
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
        try:
            with os.scandir(descriptor) as scan:
                return {item.name: item.is_dir(follow_symlinks=False) for item in scan}
        finally:
            os.close(descriptor)


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
        status = path.lstat()
        reason = _link_error(path, root) if stat.S_ISLNK(status.st_mode) else None
    except FileNotFoundError:
        return  # gone since its folder was listed
    except OSError as error:
        yield Entry(source.ref(name, uri, rule), error=f"cannot be read: {error.strerror}")
        return
    if stat.S_ISLNK(status.st_mode):
        if reason is not None:
            yield Entry(source.ref(name, uri, rule), error=reason)
    elif not stat.S_ISREG(status.st_mode):
        yield Entry(source.ref(name, uri, rule), error="no regular file")
    elif name.lower().endswith(".jsonl"):
        with _open_rows(path, uri) as stream:
            yield from _rows(stream, "" if alone else f"{name}#", uri, source, rule)
    else:
        fingerprint = f"{status.st_size}-{status.st_mtime_ns}"
        yield Entry(source.ref(name, uri, rule, fingerprint, status.st_size), location=str(path))


def _link_error(link: Path, root: Path) -> str | None:
    """Why a link is no document; none for one to a folder of this source, whose files are listed where they are."""
    try:
        is_folder = stat.S_ISDIR(link.stat().st_mode)
    except FileNotFoundError:
        return "a link to nothing"
    if not Path(os.path.realpath(link)).is_relative_to(root):
        return "points outside the source"
    return None if is_folder else _LINK


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Hold a folder open that is reached through no link: its path was resolved when it was listed."""
    descriptor = os.open(folder.anchor, _FOLDER)
    try:
        for name in folder.parts[1:]:
            deeper = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        yield descriptor
    finally:
        os.close(descriptor)


def _open_regular(path: Path) -> IO[bytes]:
    """Open a file that was listed. Raises `OSError`, also for a link, and `DocumentRejected` for a pipe or device."""
    with _opened(path.parent) as folder:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        stream = os.fdopen(os.open(path.name, flags, dir_fd=folder), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise DocumentRejected("no regular file")
    return stream


def _open_rows(path: Path, uri: str) -> IO[bytes]:
    try:
        return _open_regular(path)
    except OSError as error:
        raise SourceUnavailable(f"{uri}: cannot be read: {error.strerror}") from error
    except DocumentRejected as error:
        raise SourceUnavailable(f"{uri}: {error.detail}") from error


def _read_local(path: Path, max_bytes: int) -> bytes:
    with _open_regular(path.absolute()) as stream:
        if os.fstat(stream.fileno()).st_size > max_bytes:
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
        data = _read_remote_acl(system, items[ACL_FILE], prefix, uri)
        rules = rules.within(prefix, _parse_acl_file(data, prefix))
    for name in sorted(items):
        if _is_left_out(name):
            continue
        item, path = items[name], prefix + name
        if _is_link(item):
            yield Entry(source.ref(path, f"{uri}/{path}", rules.rule_for(path)), error=_LINK)
        elif item["type"] == "directory":
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


def _is_link(info: dict[str, Any]) -> bool:
    return bool(info.get("islink")) or info["type"] == "link"  # SFTP and the like; object stores have none


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


def _read_acl(path: Path, prefix: str) -> bytes:
    try:
        with _open_regular(path) as stream:
            return stream.read(MAX_ACL_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{prefix}{ACL_FILE}: cannot be read: {error.strerror}") from error
    except DocumentRejected as error:
        raise ConfigurationError(f"{prefix}{ACL_FILE}: {error.detail}") from error


def _read_remote_acl(system: Any, info: dict[str, Any], prefix: str, uri: str) -> bytes:
    if info["type"] != "file" or _is_link(info):
        raise ConfigurationError(f"{prefix}{ACL_FILE}: no regular file")
    with _reach(uri, lambda: system.open(info["name"], "rb")) as stream:
        return bytes(_reach(uri, lambda: stream.read(MAX_ACL_BYTES + 1)))


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
        external_id, reason, readers = f"line-{number}", f"longer than {MAX_ROW_BYTES} bytes", NOBODY
        if line is not None:
            row, reason = _parse_row(line)
            said = _json(line)
            named, readers = row.id if row else _id_of(said), _readers(said, rule)
            if claim(named):
                external_id = named or external_id
            elif row:
                reason = f"id {row.id[:100]!r} is taken by a line above"
                row = None
            if row:
                yield _row_entry(row, prefix + external_id, number, uri, source, rule)
                continue
        yield _bad_row(prefix + external_id, number, reason, uri, source, readers)


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
    if "acl" in row.model_fields_set:
        try:
            rule = rule_of(row.acl)
        except ConfigurationError as error:
            return _bad_row(external_id, number, error.detail, uri, source, NOBODY)
    text = clean(row.text)
    if not text.strip():
        return _bad_row(external_id, number, "text is empty", uri, source, rule)
    content = json.dumps([row.title, row.text, row.uri, row.metadata], sort_keys=True, ensure_ascii=False)
    fingerprint = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()
    title = given_title(row.title)
    ref = source.ref(external_id, row.uri or uri, rule, fingerprint, len(row.text.encode("utf-8", "replace")))
    return Entry(replace(ref, title=title), inline=InlineDocument(title, text, row.metadata or {}))


def _bad_row(external_id: str, number: int, reason: str, uri: str, source: _Source, rule: AccessRule) -> Entry:
    return Entry(source.ref(external_id, uri, rule), error=f"line {number}: {reason}")


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _id_of(said: Any) -> str | None:
    external_id = said.get("id") if isinstance(said, dict) else None
    if not isinstance(external_id, str) or not 0 < len(external_id) <= 1024 or "\x00" in external_id:
        return None
    return external_id.encode("utf-8", "replace").decode()


def _readers(said: Any, rule: AccessRule) -> AccessRule:
    """Who may still read the document of a row that is wrong: the row's rule, or the file's; nobody where in doubt."""
    if not isinstance(said, dict) or not said.keys() <= _Row.model_fields.keys():
        return NOBODY  # a misspelt `acl` may be among them
    try:
        return rule_of(said["acl"]) if "acl" in said else rule
    except ConfigurationError:
        return NOBODY


def _reason(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return f"no valid JSON: {problem['msg'].removeprefix('Invalid JSON: ')[:200]}"
    path = ".".join(str(part) for part in problem["loc"][:1]) or "row"
    if path == "acl":
        return "acl must be a list of principals or {allow: [...], deny: [...]}"
    allowed = f"; allowed here: {', '.join(_Row.model_fields)}" if problem["type"] == "extra_forbidden" else ""
    return f"{path}: {problem['msg']}{allowed}"
