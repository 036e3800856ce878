"""`rayrag reindex`: what it refuses, what it shows, and the start with a model that the index does not hold."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from cluster.cli import main
from cluster.jobs import reindex_entrypoint
from cluster.local import UpOptions, settle_model, up
from index.models import FILLING, Models
from index.settings import AppArgs, EmbeddingSettings, load
from ingest.__main__ import _options
from policies.errors import ConfigurationError
from tests.tiny_models import write_tiny_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a tiny model and a data directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYRAG_DATA_DIR", raising=False)
    document = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    args = document["applications"][0]["args"]
    args["data_dir"] = str(tmp_path / "data")
    args["embedding"] = {"model": str(write_tiny_model(tmp_path / "old", 16, 1))}
    path = tmp_path / "serve_config.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def args(config: Path) -> AppArgs:
    return load(config)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rayrag", "reindex", *words])
    try:
        return main()
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Give exactly one of --model, --rollback"),
        (["--rollback", "--status"], "Give exactly one of"),
        (["--model", "m", "--rollback"], "Give exactly one of"),
        (["--model", "absent"], "is no directory"),
        (["--model", "old"], "start it with rayrag up"),
        (["--rollback"], "no previous model is kept"),
        (["--drop-previous"], "no previous model is kept"),
        (["--abandon"], "no model is being filled"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words, sentence, config, monkeypatch, capsys):
    assert run(monkeypatch, *words, "--config", str(config)) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert sentence in said[-1], said


def test_the_status_shows_each_model_and_how_it_compared(config, args, monkeypatch, capsys, tmp_path):
    models = Models(args.store.ledger)
    models.settle(args.embedding)
    new = models.begin(args.embedding, EmbeddingSettings(model=str(write_tiny_model(tmp_path / "new", 24, 2))))
    models.compared(new.model_id, {"recall_old": 0.5, "recall_new": 0.75, "overlap": 0.25})
    assert run(monkeypatch, "--status", "--config", str(config)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines[1:]] == ["live", "filling"]
    assert lines[2].endswith("0.750 (0.500), 0.250")
    assert run(monkeypatch, "--status", "--json", "--config", str(config)) == 0
    assert [each["state"] for each in json.loads(capsys.readouterr().out)] == ["live", FILLING]


def test_a_service_does_not_start_with_a_model_that_the_index_does_not_hold(config, args, tmp_path):
    assert settle_model(args) is None
    other = write_tiny_model(tmp_path / "other", 16, 9)
    config.write_text(config.read_text().replace(str(tmp_path / "old"), str(other)))
    with pytest.raises(ConfigurationError, match="put the old one back"):
        up(UpOptions(config), lambda _: None)
    assert not (tmp_path / "data" / "state.json").exists()


def test_a_service_starts_with_the_file_of_before_the_promotion_and_says_what_to_write(args, tmp_path):
    new = EmbeddingSettings(model=str(write_tiny_model(tmp_path / "new", 24, 2)))
    models = Models(args.store.ledger)
    models.settle(args.embedding)
    models.filled(models.begin(args.embedding, new).model_id)
    models.promote(args.embedding)
    assert str(new.model) in (settle_model(args) or "")


def test_the_job_gets_the_models_settings_as_they_were_given():
    given = {"query_prefix": "query: ", "passage_prefix": "--passage: ", "max_tokens": 128}
    line = reindex_entrypoint(Path("/d ata/serve_config.yaml"), Path("/models/e 5"), given, 50, 7)
    options = _options(shlex.split(line)[3:])
    assert (options.command, options.model, options.sample, options.seed) == ("reindex", "/models/e 5", 50, 7)
    assert (options.query_prefix, options.passage_prefix, options.max_tokens) == ("query: ", "--passage: ", 128)
    assert options.config == "/d ata/serve_config.yaml"
