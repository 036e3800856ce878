"""What screens requests, as the ingress builds it; a passage's source is known, or the request is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from deployments.contract import ChatRequest
from deployments.screens import SourceNames
from policies.errors import Unavailable

MESSAGES = [{"role": "user", "content": "who?"}]


def test_a_sources_name_is_asked_for_once():
    asked = []

    def ask():
        asked.append(1)
        return {1: ("acme", "wiki"), 2: ("acme", "hr")}

    names = SourceNames(ask)
    assert names.of([1, 2])[2] == "hr"
    assert names.of([1])[1] == "wiki"
    assert len(asked) == 1


def test_a_passage_of_an_unknown_source_is_refused():
    with pytest.raises(Unavailable):
        SourceNames(dict).of([7])


def test_a_chat_states_its_purpose_in_its_metadata():
    body = ChatRequest.model_validate({"model": "rayrag", "messages": MESSAGES, "metadata": {"purpose": "care"}})
    assert body.metadata == {"purpose": "care"}
    with pytest.raises(ValidationError, match="purpose: at most 128"):
        ChatRequest.model_validate({"model": "rayrag", "messages": MESSAGES, "metadata": {"purpose": "x" * 129}})
