"""From a question and its passages to the messages that a model reads. Pure; the words stand in `prompts/`."""

from __future__ import annotations

import math
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypedDict

from jinja2 import FileSystemLoader, StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from index.document import Hit
from policies.unseen import without_unseen

UNKNOWN = "The documents that you may read do not answer this question."
MAX_SENTENCES = 8
MAX_HISTORY = 10
_BOUNDARY_BYTES = 8
_TAG = re.compile(
    r"[<\uff1c\ufe64](?=\s*[/|!\uff5c]?\s*[a-z|\uff5c])|[<\uff1c\ufe64](?=!)|<<(?=/?SYS)|\[(?=/?(?:INST|SYS)\b)"
    r"|(?-i:\[(?=[gs]?MASK\b|/?(?:[A-Z]{2,20}_[A-Z_]{2,40}|THINK|ARGS|IMG|AUDIO|REF|PREFIX|MIDDLE|SUFFIX)\]))",
    re.IGNORECASE,
)
"""What begins a mark that a prompt or a model's chat template is made of: `<passage`, `</passage`, `<|im_start|>`,
`<start_of_turn>`, `[INST]`, `<<SYS>>`, `[TOOL_RESULTS]`, `[gMASK]`; also in wide characters."""


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
    """Build the prompt: the rules as the system message, the last turns, then the passages and the question.

    The passages stand in the caller's message, which a model trusts less than the rules, each between marks with a
    boundary that is drawn anew for each request and stands in none of the texts: nobody who writes a document, and
    nobody who asks, can know it, so neither can end a passage or begin one.
    """
    boundary = _boundary([question, *(part for hit in passages for part in (hit.title, hit.text))])
    values = {"unknown": UNKNOWN, "max_sentences": MAX_SENTENCES, "boundary": boundary, "passages": passages}
    system, context = (_template(name).render(values) for name in ("answer.j2", "context.j2"))
    earlier = [Message(role=turn.role, content=turn.content) for turn in history[-MAX_HISTORY:]]
    return [
        Message(role="system", content=system),
        *earlier,
        Message(role="user", content=f"{context}\n\n{question}"),
    ]


def balanced(hits: Sequence[Hit], most: int, context: int) -> tuple[Hit, ...]:
    """Choose `most` passages, so that one source gives at most half of the first `context` of them.

    Where the other sources have too few, the best of the rest fill up: a company with one source gets full answers.
    `hits` come best first, as do the first `context` and those behind them.
    """
    context = min(context, most)
    share, taken = math.ceil(context / 2), Counter[int]()
    first: list[int] = []
    rest: list[int] = []
    for place, hit in enumerate(hits):
        fits = len(first) < context and taken[hit.source_id] < share
        (first if fits else rest).append(place)
        taken[hit.source_id] += 1
    missing = context - len(first)
    return tuple(hits[place] for place in [*sorted([*first, *rest[:missing]]), *rest[missing:]][:most])


def is_unknown(answer: str) -> bool:
    """Say whether a model said that it does not know, in the words that the prompt gave it."""
    return UNKNOWN.rstrip(".").casefold() in " ".join(answer.split()).casefold()


def as_data(text: str) -> str:
    """Take from a text the power to look like the prompt's own frame: marks of prompts and of chat templates break."""
    return _TAG.sub(lambda found: f"{found.group()} ", without_unseen(text)[0])


def as_attribute(text: str) -> str:
    """Make a text fit between double quotes on one line."""
    return as_data(" ".join(text.split()).replace('"', "'"))


def _boundary(texts: Iterable[str]) -> str:
    """16 hex digits that stand in none of the texts."""
    everything = "\n".join(texts)
    while (boundary := secrets.token_hex(_BOUNDARY_BYTES)) in everything:
        pass  # once in many ages of the universe
    return boundary


@cache
def _template(name: str) -> Template:
    loader = FileSystemLoader(Path(__file__).parent / "prompts")
    # Autoescape would turn quotes into entities, and a model's quote would no longer be verbatim; the filters frame.
    environment = ImmutableSandboxedEnvironment(loader=loader, undefined=StrictUndefined, autoescape=False)
    environment.filters |= {"data": as_data, "attribute": as_attribute}
    return environment.get_template(name)
