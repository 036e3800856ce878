"""How well another model finds again what the live one finds: a sample of questions made of stored text.

A question is a sentence of a live chunk, and the chunk is what should be found. That is easier than what people ask,
and both models get the same questions: it tells a model that is broken, or wrong for these documents, from one that
is not. Only the dense search is compared; the keyword index is the same under both.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from index.access_rules import Visible
from index.document import Vector
from index.embedders import Embedders
from index.live_versions import LiveVersions
from index.models import HeldModel, Models
from index.settings import AppArgs
from index.vectors import VectorStore

DEPTH = 10
_SPARE = 30
"""Found beyond `DEPTH`, for rows that are no longer live."""
MARGIN = 0.02
"""So much of the recall may be lost before a promotion needs --force."""
_SENTENCE = re.compile(r"[^.!?\n]{20,300}[.!?]?")
_MARKS = re.compile(r"[#*|`>_-]+")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two models did on the same questions.

    Recall@10: the share of questions whose chunk is among the first ten; `overlap`: the mean share of hits in common;
    `truncated`: the share of the sampled chunks that the new model reads only the beginning of.
    """

    questions: int
    recall_old: float
    recall_new: float
    overlap: float
    truncated: float
    margin: float
    seed: int

    @property
    def worse(self) -> str | None:
        """Say by how much the new model finds less than the old one; None where that is within the margin."""
        if self.recall_new >= self.recall_old - self.margin:
            return None
        return f"recall@{DEPTH} falls from {self.recall_old:.3f} to {self.recall_new:.3f}, by more than {self.margin}"

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Question:
    """A sentence, the chunk it comes from and what the model read of that chunk."""

    text: str
    chunk_id: str
    tenant_id: int
    passage: str


def compare(args: AppArgs, model: HeldModel, sample: int, seed: int) -> Comparison:
    """Ask `sample` questions, the same for the same index and `seed`, of the live model and of `model`."""
    live, models = LiveVersions(args.store.ledger), Models(args.store.ledger)
    held = models.live()
    models.close()
    old, new = (VectorStore(args.store, each.model_id, each.dim, each.generation) for each in (held, model))
    questions = sample_questions(live, old, sample, seed)
    embedders = Embedders(args.embedding)
    texts = [question.text for question in questions]
    found = [
        _search(store, questions, list(embedders.get(each).encode_query(texts).dense), live) if texts else []
        for each, store in ((held, old), (model, new))
    ]
    whole = embedders.get(model).fits([question.passage for question in questions])
    live.close()
    return Comparison(
        questions=len(questions),
        recall_old=_recall(questions, found[0]),
        recall_new=_recall(questions, found[1]),
        overlap=_mean([len(set(a) & set(b)) / max(len(a), len(b), 1) for a, b in zip(*found, strict=True)]),
        truncated=1 - _mean(whole),
        margin=MARGIN,
        seed=seed,
    )


def sample_questions(live: LiveVersions, store: VectorStore, sample: int, seed: int) -> list[Question]:
    """Take a sentence of a random chunk of a random live document, `sample` times."""
    chance = random.Random(seed)  # noqa: S311 - a sample, not a secret
    questions = []
    for _ in range(sample):
        item = live.at_or_after(f"{chance.getrandbits(128):032x}") or live.at_or_after("")
        if item is None:
            break
        key = chance.choice(item.keys)
        row = store.stored([key]).get(key)
        if row is not None:
            questions.append(Question(_sentence(row.text, chance), key, row.tenant_id, row.embedded_text))
    return questions


def _sentence(text: str, chance: random.Random) -> str:
    sentences = [" ".join(_MARKS.sub(" ", found).split()) for found in _SENTENCE.findall(text)]
    whole = [sentence for sentence in sentences if len(sentence.split()) >= 4]
    return chance.choice(whole) if whole else " ".join(text.split())[:300]


def _search(
    store: VectorStore, questions: Sequence[Question], vectors: Sequence[Vector], live: LiveVersions
) -> list[list[str]]:
    # Nothing of what is found is shown to anybody: a question may look through all of its tenant.
    rules = {tenant: Visible(tenant, live.rules_of(tenant)) for tenant in {each.tenant_id for each in questions}}
    found = []
    for question, vector in zip(questions, vectors, strict=True):
        candidates = store.search_dense(vector, rules[question.tenant_id], DEPTH + _SPARE)
        now = live.of(list({candidate.document_id for candidate in candidates}))
        kept = [c for c in candidates if c.document_id in now and now[c.document_id].version == c.version]
        found.append([candidate.chunk_id for candidate in kept[:DEPTH]])
    return found


def _recall(questions: Sequence[Question], found: Sequence[Sequence[str]]) -> float:
    return _mean([question.chunk_id in hits for question, hits in zip(questions, found, strict=True)])


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4) if values else 1.0
