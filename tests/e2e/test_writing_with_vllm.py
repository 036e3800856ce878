"""Real vLLM (the CPU build) through `ray.serve.llm`, with a tiny random model made here. Runs last: it redeploys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.dashboard import applications, deploy
from cluster.serve_file import read_serve_file

QUESTION = "How often is the emergency brake of the tow tank carriage tested?"
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<assistant> "


def make_tiny_model(directory: Path) -> None:
    """A Llama with random weights and a byte-level tokenizer: it writes nonsense, by the real engine."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [QUESTION], trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=16384, bos_token_id=0, eos_token_id=1, head_dim=32,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory, safe_serialization=True)


def with_vllm(config: Path, model: Path, **generation: Any) -> Path:
    document = yaml.safe_load(config.read_text())
    application = document["applications"][0]
    application["args"]["generation"] = {
        "kind": "vllm",
        "model": str(model),
        "served_name": "tiny",
        "max_tokens": 24,
        "engine": {"dtype": "float32", "enforce_eager": True, "max_model_len": 16384, "max_num_seqs": 4},
        "placement": [{"CPU": 1}],
        "environment": {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"},
        **generation,
    }
    path = config.parent / "serve_config.vllm.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def redeploy(service: Any, config: Path, timeout_s: float = 420) -> None:
    deploy(service.state, read_serve_file(config, service.state.data_dir, service.state.ports.http).document)
    deadline = time.monotonic() + timeout_s
    time.sleep(2)
    while time.monotonic() < deadline:
        (application,) = applications(service.state)
        assert not application.failed, application
        if application.status == "RUNNING":
            return
        time.sleep(1)
    raise AssertionError("the application did not come up with vLLM")


@pytest.fixture(scope="module")
def writing(company, tmp_path_factory):
    model = tmp_path_factory.mktemp("model")
    make_tiny_model(model)
    redeploy(company, with_vllm(company.config, model))
    return company


def test_vllm_writes_the_answer_and_what_does_not_hold_is_no_citation(writing, alice):
    answer = writing.query(alice, QUESTION)
    assert answer["generator"] == "vllm:tiny" and answer["degraded"] == []
    for citation in answer["citations"]:
        assert citation["quote"]


def test_a_vllm_stream_ends_in_done(writing, alice):
    answer = writing.call("POST", "/v1/query", alice, json={"question": QUESTION, "stream": True})
    assert answer.text.rstrip().split("\n\n")[-1].startswith("event: done")


def test_the_openai_client_streams_from_vllm(writing, alice):
    from openai import OpenAI

    client = OpenAI(base_url=f"{writing.state.api}/v1", api_key=alice)
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    chunks = list(client.chat.completions.create(model="tiny", messages=messages, stream=True, max_tokens=8))
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].choices[0].delta.generator == "vllm:tiny"


def test_nothing_visible_means_no_call_of_the_model(writing):
    answer = writing.query(writing.token("nobody", tenant="elsewhere"), QUESTION)
    assert answer["abstained"] and answer["generator"] == "extractive"
