"""Who is in which group, as an operator's file says it: CSV, YAML or JSON.

    group,member                          groups:
    finance,user:ada                        finance: [user:ada, group:controllers]
    finance,group:controllers               controllers: [user:bob]

A file that is wrong in any way raises, and names the line or group. A member that was skipped would lose rights, and
with them what denies: so nothing is skipped, and a file that says nothing at all is wrong, too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from policies.errors import ConfigurationError, InvalidRequest
from policies.groups import Membership

MAX_BYTES = 200_000_000
_COLUMNS = ["group", "member"]


def read_group_file(path: Path) -> Sequence[Membership]:
    """Read a `.csv`, `.yaml`, `.yml` or `.json`. Raises `ConfigurationError` with the place of what is wrong."""
    readers = {".csv": _of_csv, ".yaml": _of_yaml, ".yml": _of_yaml, ".json": _of_json}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise ConfigurationError(f"{path}: its name must end in {', '.join(readers)}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(f"{path}: larger than {MAX_BYTES} bytes")
        found = read(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: no UTF-8 at byte {error.start}") from error
    except (ConfigurationError, InvalidRequest) as error:
        raise ConfigurationError(f"{path}: {error.detail}") from error
    if not found:
        raise ConfigurationError(
            f"{path}: it names no member of any group; rayrag groups remove takes all of them away"
        )
    return found


def _of_csv(text: str) -> Sequence[Membership]:
    rows = csv.reader(io.StringIO(text), strict=True)
    found = []
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if header != _COLUMNS:
            raise ConfigurationError(f"line 1: the columns must be {','.join(_COLUMNS)}")
        for row in rows:
            if not row:
                continue
            if len(row) != len(_COLUMNS):
                raise ConfigurationError(f"line {rows.line_num}: {len(row)} columns in place of {len(_COLUMNS)}")
            try:
                found.append(Membership.of(row[1].strip(), row[0].strip()))
            except InvalidRequest as error:
                raise ConfigurationError(f"line {rows.line_num}: {error.detail}") from error
    except csv.Error as error:
        raise ConfigurationError(f"line {rows.line_num}: no valid CSV: {error}") from error
    return found


def _of_yaml(text: str) -> Sequence[Membership]:
    try:
        return _of_mapping(yaml.load(text, _OnceLoader))  # noqa: S506 - a safe loader, and stricter
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise ConfigurationError(f"no valid YAML{where}: {getattr(error, 'problem', None) or 'malformed'}") from error


def _of_json(text: str) -> Sequence[Membership]:
    try:
        return _of_mapping(json.loads(text, object_pairs_hook=_once))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"no valid JSON: {error}") from error


def _of_mapping(document: Any) -> Sequence[Membership]:
    if not isinstance(document, Mapping) or set(document) != {"groups"} or not isinstance(document["groups"], Mapping):
        raise ConfigurationError("it must hold one key, groups, with a list of members for each group")
    found = []
    for group, members in document["groups"].items():
        where = f"groups.{str(group)[:64]}"
        if not isinstance(group, str):
            raise ConfigurationError(f"{where}: a group's name must be text: put it in quotes")
        if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
            raise ConfigurationError(f"{where}: must be a list of user:NAME and group:NAME")
        try:
            found += [Membership.of(member, group) for member in members]
        except InvalidRequest as error:
            raise ConfigurationError(f"{where}: {error.detail}") from error
    return found


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that comes twice: the second would take the place of the first, and its members were lost."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ConfigurationError(f"{key[:64]!a} is named twice")
        found[key] = value
    return found


class _OnceLoader(yaml.SafeLoader):
    """A safe loader that refuses a key that comes twice, and one that merges another mapping in."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem="a key twice, or merged in", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
