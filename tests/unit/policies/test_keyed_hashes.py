"""Hashes under a key: told apart by tenant and use, and the key kept as a secret is."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest

from policies.errors import ConfigurationError
from policies.keyed_hashes import KeyedHashes, normalised


def test_equal_texts_have_equal_hashes_under_one_key_tenant_and_use_only():
    hashes = KeyedHashes(b"k" * 32)
    known = hashes.of("acme", "question", "who?")
    assert known == KeyedHashes(b"k" * 32).of("acme", "question", "who?")
    others = [
        hashes.of("rival", "question", "who?"),
        hashes.of("acme", "subject", "who?"),
        hashes.of("acme", "question", "who"),
        KeyedHashes(b"j" * 32).of("acme", "question", "who?"),
        hashes.of("acmeq", "uestion", "who?"),
    ]
    assert len({known, *others}) == len(others) + 1
    assert len(known) == 64


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("DE89 3704 0044", "de8937040044"),
        ("Ada  Lovelace", "ada lovelace"),
        ("ADA@X.org ", "ada@x.org"),
        ("１２-34", "1234"),
    ],
)
def test_a_person_is_known_however_the_identifier_is_written(one, other):
    hashes = KeyedHashes(b"k" * 32)
    assert hashes.subject("acme", one) == hashes.subject("acme", other)


def test_an_address_keeps_the_marks_that_tell_it():
    assert normalised("a.b@x.org") != normalised("ab@x.org")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "secrets" / "compliance.key"
    first = KeyedHashes.load(path).of("a", "subject", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyedHashes.load(path).of("a", "subject", "x") == first


def _load(path: str) -> str:
    return KeyedHashes.load(Path(path)).of("a", "subject", "x")


def test_processes_that_start_at_once_have_one_key(tmp_path: Path):
    path = str(tmp_path / "new" / "compliance.key")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(_load, [path] * 12))) == 1


@pytest.mark.parametrize(("content", "mode"), [("zz" * 32, 0o600), ("ab" * 8, 0o600), ("", 0o600), ("ab" * 32, 0o644)])
def test_a_key_that_is_none_or_that_others_may_read_is_refused(tmp_path: Path, content: str, mode: int):
    path = tmp_path / "compliance.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(ConfigurationError):
        KeyedHashes.load(path)
