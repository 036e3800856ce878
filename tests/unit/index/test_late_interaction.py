"""MaxSim over kept token vectors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from index.document import TokenVectors
from index.late_interaction import maxsim


def make_vectors(rows: int, dim: int = 16, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def quantised(vectors: NDArray[np.float32]) -> TokenVectors:
    return np.round(vectors * 127).astype(np.int8)


def test_each_question_token_counts_its_best_match_in_each_document() -> None:
    query = make_vectors(5, seed=1)
    documents = [make_vectors(rows, seed=rows) for rows in (1, 7, 30, 2)]
    expected = [(query @ document.T).max(axis=1).mean() for document in documents]
    assert maxsim(query, [quantised(document) for document in documents]) == pytest.approx(expected, abs=0.02)


def test_a_document_with_every_question_token_scores_one() -> None:
    query = make_vectors(4)
    unrelated = make_vectors(9, seed=5)
    assert maxsim(query, [quantised(np.concatenate([unrelated, query]))])[0] == pytest.approx(1.0, abs=0.02)


def test_the_extremes_of_int8_do_not_overflow() -> None:
    query = np.full((1, 384), 384**-0.5, np.float32)
    documents = [np.full((1, 384), sign * 127, np.int8) for sign in (1, -1)]
    assert maxsim(query, documents) == pytest.approx([384**0.5, -(384**0.5)], rel=1e-4)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_document_without_tokens_scores_zero_wherever_it_stands(place: int) -> None:
    query = make_vectors(3)
    documents = [quantised(query), quantised(query)]
    documents.insert(place, np.empty((0, 16), np.int8))
    scores = maxsim(query, documents)
    assert scores[place] == 0
    assert np.delete(scores, place) == pytest.approx([1, 1], abs=0.02)


def test_nothing_to_score_is_no_error() -> None:
    assert maxsim(make_vectors(3), []).shape == (0,)
    assert maxsim(np.empty((0, 16), np.float32), [quantised(make_vectors(2))]).tolist() == [0]


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="dimension"):
        maxsim(make_vectors(3, dim=16), [quantised(make_vectors(2, dim=8))])
