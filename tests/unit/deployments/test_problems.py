"""Errors survive the way between processes, and one table says what a caller is told."""

from __future__ import annotations

import pickle

import pytest

from deployments import problems
from policies import errors

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RayragError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_round_trips_through_pickle(kind):
    error = kind("a detail")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and again.args == error.args and vars(again) == vars(error)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not errors.RayragError], ids=lambda k: k.__name__)
def test_every_error_has_its_status(kind):
    answer = problems.answer_for(kind("a detail"), "id")
    assert answer.status == problems.STATUS[kind]
    assert answer.body("id")["request_id"] == "id"


@pytest.mark.parametrize("kind", [errors.Unavailable, errors.SourceUnavailable, errors.ConfigurationError, ValueError])
def test_our_own_failures_show_nothing(kind):
    answer = problems.answer_for(kind("postgresql://secret@db/x"), "id")
    assert answer.status >= 500 and "secret" not in answer.detail


def test_unknown_and_foreign_are_one_answer():
    assert problems.answer_for(errors.NotFound("document 1"), "i") == problems.answer_for(errors.NotFound("2"), "i")


def test_overload_says_when_to_come_back():
    assert problems.answer_for(errors.Overloaded("too much", 7), "id").headers == {"Retry-After": "7"}


def test_why_a_token_was_refused_is_for_the_log_and_not_for_the_caller(caplog):
    caplog.set_level("INFO", logger="ray.serve")

    answer = problems.answer_for(errors.TokenRejected("expired"), "id-7")

    assert answer == problems.answer_for(errors.Unauthenticated("no bearer token"), "id-8")
    assert "expired" in caplog.text and "id-7" in caplog.text
