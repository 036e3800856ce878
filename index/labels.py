"""A label as it stands in settings and in HTTP bodies: one of four words, never a number, never nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from policies.errors import InvalidRequest
from policies.labels import Label


def _read(value: Any) -> Label:
    if isinstance(value, Label):
        return value
    try:
        return Label.of(value)
    except InvalidRequest as error:
        raise ValueError(error.detail.removeprefix("label: ")) from error


LabelWord = Annotated[
    Label,
    BeforeValidator(_read),
    PlainSerializer(lambda label: label.word, return_type=str),
    WithJsonSchema({"type": "string", "enum": [label.word for label in Label]}),
]
SaidLabel = Annotated[
    Label | None,
    BeforeValidator(_read),
    PlainSerializer(lambda label: None if label is None else label.word, return_type=str | None),
    WithJsonSchema({"type": "string", "enum": [label.word for label in Label]}),
]
"""One that may be left out; an empty value is not the same as none: it is refused."""
