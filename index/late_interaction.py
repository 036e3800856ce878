"""MaxSim: how well each word of a question is met somewhere in a passage, from kept token vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from index.document import TokenVectors

TOKEN_SCALE = 127.0
"""A token vector's int8 entry is the unit vector's entry times this, rounded."""


def maxsim(query: NDArray[np.float32], documents: Sequence[TokenVectors]) -> NDArray[np.float32]:
    """Late-interaction scores, float32[n]: the mean over question tokens of the best cosine in each document.

    `query` float32[q, dim], unit rows; `documents[i]` int8[t_i, dim]. A document without tokens scores 0, as does
    everything for a question without tokens. The sum of the source, divided by q, so that scores stay in [-1, 1]
    whatever the question's length: Khattab and Zaharia, "ColBERT", SIGIR 2020, equation 3.

    Raises `ValueError` when a document's vectors have another dimension than the question's.
    """
    scores = np.zeros(len(documents), np.float32)
    filled = [row for row, tokens in enumerate(documents) if len(tokens)]
    if not filled or not len(query):
        return scores
    lengths = np.array([len(documents[row]) for row in filled])
    stacked = np.concatenate([documents[row] for row in filled]).astype(np.float32)
    similarities = stacked @ query.T  # float32[all tokens, q]
    best = np.maximum.reduceat(similarities, np.cumsum(lengths) - lengths, axis=0)
    scores[filled] = best.mean(axis=1) / TOKEN_SCALE
    return scores
