"""Embedding models of a few kilobytes, made on the spot: BERT with random weights and words for a vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LAYERS, HEADS, INNER, POSITIONS = 1, 4, 32, 64
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?#>-'\""


def write_tiny_model(directory: Path, dim: int = 16, seed: int = 3) -> Path:
    """Write a model of `dim` dimensions that sentence-transformers' layout describes; `seed` decides its weights."""
    directory.mkdir(parents=True, exist_ok=True)
    words = {token: number for number, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    for letter in LETTERS:
        for token in (letter, f"##{letter}"):
            words[token] = len(words)
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", words["[CLS]"]), ("[SEP]", words["[SEP]"])]
    tokenizer.post_processor = processors.BertProcessing(special[1], special[0])
    tokenizer.save(str(directory / "tokenizer.json"))
    random = np.random.default_rng(seed)
    weights = {
        name: random.normal(scale=0.5, size=shape).astype(np.float32) for name, shape in _shapes(dim, len(words))
    }
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(_config(dim, len(words))))
    return directory


def _config(dim: int, words: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": dim,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": words,
    }


def _shapes(dim: int, words: int) -> list[tuple[str, tuple[int, ...]]]:
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("embeddings.word_embeddings.weight", (words, dim)),
        ("embeddings.position_embeddings.weight", (POSITIONS, dim)),
        ("embeddings.token_type_embeddings.weight", (2, dim)),
        ("embeddings.LayerNorm.weight", (dim,)),
        ("embeddings.LayerNorm.bias", (dim,)),
    ]
    for layer in range(LAYERS):
        for name, rows, columns in (
            ("attention.self.query", dim, dim),
            ("attention.self.key", dim, dim),
            ("attention.self.value", dim, dim),
            ("attention.output.dense", dim, dim),
            ("intermediate.dense", INNER, dim),
            ("output.dense", dim, INNER),
        ):
            shapes.append((f"encoder.layer.{layer}.{name}.weight", (rows, columns)))
            shapes.append((f"encoder.layer.{layer}.{name}.bias", (rows,)))
        for name in ("attention.output", "output"):
            shapes.append((f"encoder.layer.{layer}.{name}.LayerNorm.weight", (dim,)))
            shapes.append((f"encoder.layer.{layer}.{name}.LayerNorm.bias", (dim,)))
    return shapes
