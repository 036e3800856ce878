"""Who may read a source's files: `acl.yaml`, and the forms in which a rule is written elsewhere.

`acl.yaml` is a list of `{path: glob, allow: [principal], deny: [principal], label: word}`. The last entry that matches
a path says who reads it; a path that none matches keeps the rule the source was added with. The label is that of the
last matching entry that has one: an entry without leaves it as an earlier one, or the source, says. Globs are matched
against the whole path relative to the file's folder, with `/` between names and case as written:

    *     any characters within one name
    ?     one character within one name
    **    any number of whole names: `hr/**` is everything under hr, `**/*.pdf` every PDF at any depth

Any other character stands for itself. A file that is wrong in any way raises: it never falls back to a wider rule.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from policies.access import AccessRule
from policies.errors import ConfigurationError, InvalidRequest
from policies.labels import Label

ACL_FILE = "acl.yaml"
MAX_BYTES = 1_000_000
_KEYS = ("path", "allow", "deny", "label")


@dataclass(frozen=True, slots=True)
class AclFile:
    """The checked entries of one `acl.yaml`, in order."""

    entries: tuple[tuple[re.Pattern[str], AccessRule, Label | None], ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> AclFile:
        """Read the file's bytes. Raises `ConfigurationError` with the entry's number and what is allowed."""
        if len(data) > MAX_BYTES:
            raise ConfigurationError(f"{ACL_FILE}: larger than {MAX_BYTES} bytes")
        try:
            entries = yaml.safe_load(data.decode("utf-8-sig"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{ACL_FILE}: no valid YAML{_where(error)}") from error
        if not isinstance(entries, list):
            raise ConfigurationError(f"{ACL_FILE}: must be a list of {{path, allow, deny, label}}")
        return cls(tuple(_entry(entry, number) for number, entry in enumerate(entries, start=1)))

    def rule_for(self, path: str) -> AccessRule | None:
        """Who reads `path` (relative to the file's folder), by the last entry that matches; none where none does.

        The rule has no label of its own: see `label_for`.
        """
        normal = unicodedata.normalize("NFC", path)
        return next((rule for pattern, rule, _ in reversed(self.entries) if pattern.fullmatch(normal)), None)

    def label_for(self, path: str) -> Label | None:
        """The label of `path`, by the last entry that matches and has one; none where none does."""
        normal = unicodedata.normalize("NFC", path)
        labelled = ((pattern, label) for pattern, _, label in reversed(self.entries) if label is not None)
        return next((label for pattern, label in labelled if pattern.fullmatch(normal)), None)


def parse_acl(text: str) -> AccessRule:
    """Read a rule from a command line: `group:a,user:b`, or JSON `{"allow": [...], "deny": [...]}` or `[...]`.

    Empty text allows nobody. Raises `ConfigurationError`.
    """
    text = text.strip()
    if text[:1] not in ("{", "["):
        return rule_of([name.strip() for name in text.split(",") if name.strip()])
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"acl: no valid JSON: {error}") from error
    return rule_of(value)


def rule_of(value: Any) -> AccessRule:
    """Check a rule as it stands in JSON: a list of principals, or `{allow, deny}`. Raises `ConfigurationError`."""
    if isinstance(value, list):
        return _rule(value, [])
    if not isinstance(value, Mapping):
        raise ConfigurationError("acl must be a list of principals or {allow: [...], deny: [...]}")
    unknown = [str(key) for key in value if key not in ("allow", "deny")]
    if unknown:
        raise ConfigurationError(f"acl: unknown key {unknown[0]!r}; allowed here: allow, deny")
    return _rule(value.get("allow", []), value.get("deny", []))


def _rule(allow: Any, deny: Any) -> AccessRule:
    for key, names in (("allow", allow), ("deny", deny)):
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(f"acl: {key} must be a list of principals such as group:finance")
    try:
        return AccessRule.of(allow, deny)
    except InvalidRequest as error:
        raise ConfigurationError(f"acl: {error.detail}") from error


def _where(error: Exception) -> str:
    """The place of an error, and no more: the parser's words quote the file, and whoever reads a log may not."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f" at line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    if isinstance(error, RecursionError):
        return ": nested too deeply"
    place = error.start if isinstance(error, UnicodeDecodeError) else getattr(error, "position", None)
    return "" if place is None else f": a byte or character that may not stand there, at {place}"


def _entry(entry: Any, number: int) -> tuple[re.Pattern[str], AccessRule, Label | None]:
    where = f"{ACL_FILE}: entry {number}"
    if not isinstance(entry, dict):
        raise ConfigurationError(f"{where}: must be a mapping with the keys {', '.join(_KEYS)}")
    unknown = [str(key) for key in entry if key not in _KEYS]
    if unknown:
        raise ConfigurationError(f"{where}: unknown key {unknown[0]!r}; allowed here: {', '.join(_KEYS)}")
    if "allow" not in entry and "deny" not in entry:
        raise ConfigurationError(f"{where}: give allow or deny ('allow: []' for nobody)")
    try:
        pattern = _pattern(entry.get("path"))
        rule = rule_of({key: entry[key] for key in ("allow", "deny") if key in entry})
        label = Label.of(entry["label"]) if "label" in entry else None
    except (ConfigurationError, InvalidRequest) as error:
        raise ConfigurationError(f"{where}: {error.detail}") from error
    return pattern, rule, label


def _pattern(glob: Any) -> re.Pattern[str]:
    """Translate a glob as the module describes it, into an expression that takes time linear in the path.

    What stands behind a `*` or `**` is matched where it fits first, for good (`(?>…)`): a later place could only leave
    less to the rest. An ordinary translation tries all places of all stars, which never ends for `*a*a*a*a`.
    """
    if not isinstance(glob, str) or not glob:
        raise ConfigurationError("path must be a glob such as hr/**")
    if glob.startswith("/") or "\\" in glob or ".." in PurePosixPath(glob).parts:
        raise ConfigurationError(f"path {glob!r} must be relative to the folder, with / between names and no ..")
    glob = unicodedata.normalize("NFC", glob).removeprefix("./")
    if glob.endswith("/"):
        glob += "**"
    names = glob.split("/")
    if any("**" in name for name in names if name != "**"):
        raise ConfigurationError(f"path {glob!r}: ** must stand alone between slashes")
    runs: list[list[str]] = [[]]  # the names between one ** and the next
    for name in names:
        if name == "**":
            runs.append([])
        else:
            runs[-1].append(_name_pattern(name))
    first, *middle = ["".join(f"{name}/" for name in run) for run in runs[:-1]] or [""]
    below = "(?:[^/]+/)*" if len(runs) > 1 else ""
    last = "/".join(runs[-1]) if runs[-1] else ".+"
    text = first + "".join(f"(?>(?:[^/]+/)*?{run})" for run in middle if run) + below + last
    return re.compile(text, re.DOTALL)


def _name_pattern(name: str) -> str:
    first, *rest = [re.escape(piece).replace(r"\?", "[^/]") for piece in re.split(r"\*+", name)]
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + "[^/]*" + last
