from __future__ import annotations

from typing import Any

import pytest

from policies.access import AccessRule
from policies.errors import InvalidRequest
from policies.labels import Label
from policies.principals import EVERYONE, Principal


@pytest.mark.parametrize("label", Label)
def test_a_label_is_read_as_it_is_written(label: Label) -> None:
    assert Label.of(label.word) is label


def test_stored_numbers_never_change() -> None:
    stored = {0: "public", 1: "internal", 2: "confidential", 3: "restricted"}

    assert {int(label): label.word for label in Label} == stored


@pytest.mark.parametrize(
    "text",
    ["", "Public", "PUBLIC", "public ", "secret", "1", "internal\n", "int\u0435rnal", None, 1, True, [], {}, Label],
)
def test_what_is_no_label_is_refused_and_never_taken_for_one(text: Any) -> None:
    with pytest.raises(InvalidRequest, match="public, internal, confidential, restricted"):
        Label.of(text)


@pytest.mark.parametrize("clearance", Label)
@pytest.mark.parametrize("label", Label)
def test_a_name_and_clearance_are_both_needed(label: Label, clearance: Label) -> None:
    ada, bob = (Principal(name, "acme", clearance=clearance) for name in ("ada", "bob"))

    assert AccessRule.of(["user:ada"], label=label).permits(ada) == (label <= clearance)
    assert not AccessRule.of(["user:ada"], label=label).permits(bob)
    assert not AccessRule.of([EVERYONE], ["user:ada"], label).permits(ada)


def test_callers_and_rules_that_say_nothing_are_internal() -> None:
    assert AccessRule.of(["everyone"]).label is Label.INTERNAL
    assert Principal("ada", "acme").clearance is Label.INTERNAL


def test_a_rules_key_tells_labels_apart_and_is_what_it_was_without_one() -> None:
    keys = {AccessRule.of(["user:ada"], label=label).key for label in Label}

    assert len(keys) == len(Label)
    assert AccessRule.of(["user:ada"], ["group:b"]).key == "user:ada\n!\ngroup:b"
