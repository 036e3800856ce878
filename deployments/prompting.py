"""From a question and its passages to the messages that a model reads. Pure; the words stand in `prompts/answer.j2`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypedDict

from jinja2 import FileSystemLoader, StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from index.document import Hit

UNKNOWN = "The documents that you may read do not answer this question."
MAX_SENTENCES = 8
MAX_HISTORY = 10
_TAG = re.compile(r"<(?=\s*/?\s*passage\b)", re.IGNORECASE)


class Message(TypedDict):
    """A message in OpenAI's format."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """An earlier message of the conversation."""

    role: Literal["user", "assistant"]
    content: str


def messages(question: str, passages: Sequence[Hit], history: Sequence[Turn] = ()) -> list[Message]:
    """Build the prompt: rules and passages as the system message, the last turns, then the question."""
    system = _template().render(passages=passages, unknown=UNKNOWN, max_sentences=MAX_SENTENCES)
    earlier = [Message(role=turn.role, content=turn.content) for turn in history[-MAX_HISTORY:]]
    return [Message(role="system", content=system), *earlier, Message(role="user", content=question)]


def is_unknown(answer: str) -> bool:
    """Say whether a model said that it does not know, in the words that the prompt gave it."""
    return UNKNOWN.rstrip(".").casefold() in " ".join(answer.split()).casefold()


def as_data(text: str) -> str:
    """Take from a passage the power to close its own frame: `<passage` and `</passage` lose their bracket."""
    return _TAG.sub("&lt;", text)


def as_attribute(text: str) -> str:
    """Make a text fit between double quotes on one line."""
    return as_data(" ".join(text.split()).replace('"', "'"))


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "prompts")
    # Autoescape would turn quotes into entities, and a model's quote would no longer be verbatim; the filters frame.
    environment = ImmutableSandboxedEnvironment(loader=loader, undefined=StrictUndefined, autoescape=False)
    environment.filters |= {"data": as_data, "attribute": as_attribute}
    return environment.get_template("answer.j2")
