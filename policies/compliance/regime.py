"""Regimes: sets of rules and duties in YAML, so that a lawyer can read one and an auditor can compare two.

A regime supports the articles that its rules name. To apply one is no statement that its law is complied with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from policies.compliance.actions import Action
from policies.compliance.categories import CATEGORIES
from policies.errors import ConfigurationError, InvalidRequest
from policies.labels import Label
from policies.pii.findings import expand

PACKAGED = Path(__file__).parent.parent / "regimes"
MAX_BYTES = 1_000_000
_Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_Article = Annotated[str, Field(min_length=3, max_length=200)]


def _action(value: Any) -> Action:
    if isinstance(value, Action):
        return value
    found = {action.word: action for action in Action}.get(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"no such action; allowed: {', '.join(action.word for action in Action)}")
    return found


def _label(value: Any) -> Label:
    try:
        return value if isinstance(value, Label) else Label.of(value)
    except InvalidRequest as error:
        raise ValueError(error.detail) from error


def _entities(value: Any) -> Any:
    if isinstance(value, list):
        expand(value)
    return value


def _category(value: Any) -> Any:
    if value not in CATEGORIES:
        raise ValueError(f"no such category; allowed: {', '.join(sorted(CATEGORIES))}")
    return value


Category = Annotated[str, BeforeValidator(_category)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Reveal(_Part):
    """Who is shown a value all the same: holders of `pii:reveal` who state one of these purposes."""

    purposes: tuple[str, ...] = Field(min_length=1)
    roles: tuple[str, ...] = ()


class RuleText(_Part):
    """One rule. Without `entities` it is about whole documents of its categories."""

    id: _Id
    article: _Article
    why: str = Field(min_length=1, max_length=500)
    at: Literal["ingest", "answer"]
    action: Annotated[Action, BeforeValidator(_action)]
    entities: Annotated[tuple[str, ...], BeforeValidator(_entities)] = ()
    categories: tuple[Category, ...] = ()
    reveal: Reveal | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> RuleText:
        if not self.entities and not self.categories:
            raise ValueError("name entities or categories")
        if not self.entities and not self.action.is_of_document:
            raise ValueError("without entities the action is quarantine or drop_document")
        if self.at == "answer" and self.action is Action.QUARANTINE:
            raise ValueError("a document is quarantined at ingest")
        if self.reveal is not None and self.at == "ingest":
            raise ValueError("what is done at ingest cannot be revealed later: use at: answer")
        return self


class LabelText(_Part):
    """The lowest label of documents of a category."""

    id: _Id
    article: _Article
    category: Category
    minimum: Annotated[Label, BeforeValidator(_label)]


class PurposeText(_Part):
    """Why somebody may ask, and on what basis."""

    article: _Article
    basis: Literal[
        "consent",
        "contract",
        "legal_obligation",
        "vital_interests",
        "public_task",
        "legitimate_interests",
        "notice",
        "forbidden",
    ]
    roles: tuple[str, ...] = ()
    reveals: bool = False
    opt_out: bool = Field(default=False, description="a person may have their data left out of it")


class KeepText(_Part):
    """How long documents of a category stay as they are: nobody changes, expires or erases them."""

    id: _Id
    article: _Article
    category: Category
    keep_days: float = Field(gt=0, le=36_525)


class ExpireText(_Part):
    """When documents of a category go."""

    id: _Id
    article: _Article
    category: Category
    expire_days: float = Field(gt=0, le=36_525)


class PassagesText(_Part):
    """At most so many passages of a category's documents for one answer, more for some roles and purposes."""

    id: _Id
    article: _Article
    category: Category
    at_most: int = Field(ge=0, le=50)
    roles: Mapping[str, Annotated[int, Field(ge=0, le=50)]] = {}
    purposes: Mapping[str, Annotated[int, Field(ge=0, le=50)]] = {}


class Duties(_Part):
    """What a regime asks for beside what is done to values."""

    labels: tuple[LabelText, ...] = ()
    purposes: Mapping[str, PurposeText] = {}
    require_purpose: bool = False
    keep: tuple[KeepText, ...] = ()
    expire: tuple[ExpireText, ...] = ()
    passages: tuple[PassagesText, ...] = ()
    residency_required: bool = Field(default=False, description="a source says where its documents may be")


class Regime(_Part):
    """A regime as its file says it."""

    regime: _Id
    title: str = Field(min_length=1, max_length=200)
    note: str = Field(default="", max_length=2_000)
    rules: tuple[RuleText, ...] = ()
    duties: Duties = Duties()

    @field_validator("rules")
    @classmethod
    def _named_once(cls, value: tuple[RuleText, ...]) -> tuple[RuleText, ...]:
        names = [rule.id for rule in value]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules are called {twice}")
        return value

    @model_validator(mode="after")
    def _purposes_exist(self) -> Regime:
        for rule in self.rules:
            for purpose in rule.reveal.purposes if rule.reveal else ():
                if purpose not in self.duties.purposes:
                    raise ValueError(f"rules.{rule.id}.reveal.purposes: {purpose!r} is none of duties.purposes")
        return self


def read_regime(path: Path) -> Regime:
    """Read a regime. Raises `ConfigurationError` with the path of each wrong key, and what is allowed there."""
    try:
        text = path.read_bytes()
        if len(text) > MAX_BYTES:
            raise ConfigurationError(f"{path}: over {MAX_BYTES} bytes")
        document = yaml.safe_load(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    try:
        return Regime.model_validate(document)
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise ConfigurationError("\n".join(lines)) from error


def packaged() -> Sequence[str]:
    """The names of the regimes that come with it."""
    return sorted(path.stem for path in PACKAGED.glob("*.yaml"))


def read_regimes(names: Sequence[str], files: Sequence[Path] = ()) -> dict[str, Regime]:
    """Read the regimes of these names: the operator's files, then those that come with it. Unknown ones are left out.

    Raises `ConfigurationError` as `read_regime`, and where two files name one regime.
    """
    found: dict[str, Regime] = {}
    for path in files:
        regime = read_regime(path)
        if regime.regime in found or regime.regime in packaged():
            raise ConfigurationError(f"{path}: regime: there is another {regime.regime}")
        found[regime.regime] = regime
    for name in names:
        if name not in found and name in packaged():
            found[name] = read_regime(PACKAGED / f"{name}.yaml")
    return found
