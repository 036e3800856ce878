"""A secret that others may read is none: the setting that names the file is told, with the mode, never the content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from index.settings import parse, read_secret
from policies.errors import ConfigurationError
from policies.keys import PemFile
from policies.secret_files import MODE_VARIABLE, read_secret_file, require_private, require_unchanged
from tests.unit.policies.forged import KEYS, public_pem

KEY = "generation.api_key_file"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("  bluebell\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_secret_of_the_owner_alone_is_read(secret: Path, mode: int) -> None:
    secret.chmod(mode)

    assert read_secret_file(secret, KEY) == "bluebell"
    assert read_secret(str(secret), None, KEY) == "bluebell"
    require_private(secret, KEY)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o666, 0o777])
def test_a_secret_that_others_may_read_or_change_is_refused_with_key_and_mode(secret: Path, mode: int) -> None:
    secret.chmod(mode)

    for read in (lambda: read_secret_file(secret, KEY), lambda: require_private(secret, KEY)):
        with pytest.raises(ConfigurationError) as refused:
            read()
        assert refused.value.detail.startswith(f"{KEY}: {secret} has mode {mode:04o}")
        assert "chmod 600" in refused.value.detail and "bluebell" not in refused.value.detail


@pytest.mark.parametrize("mode", [0o644, 0o444, 0o600])
def test_what_is_no_secret_may_be_read_by_others(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    require_unchanged(secret, KEY)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o622, 0o666])
def test_what_is_believed_may_be_changed_by_nobody_else(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"has mode {mode:04o}, so that others may change it"):
        require_unchanged(secret, KEY)


def test_what_is_believed_is_a_file_of_ours_or_of_root(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="is no file"):
        require_unchanged(secret.parent, KEY)
    with pytest.raises(ConfigurationError, match="No such file"):
        require_unchanged(secret.with_name("absent"), KEY)
    owner = secret.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner != 0:
        with pytest.raises(ConfigurationError, match=f"belongs to user {owner}"):
            require_unchanged(secret, KEY)


@pytest.mark.parametrize("mode", [0o664, 0o666])
def test_a_public_key_that_others_may_change_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "issuer.pem"
    path.write_bytes(public_pem(KEYS["ES256"]))
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="others may change it"):
        PemFile(path)
    path.chmod(0o644)
    PemFile(path)


def mounted(tmp_path: Path, mode: int) -> Path:
    """A secret as the kubelet lays it: a link to a link to a file whose directory has a date for a name."""
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "token").write_text("bluebell")
    (tmp_path / "..2026" / "token").chmod(mode)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "token").symlink_to("..data/token")
    return tmp_path / "token"


@pytest.mark.parametrize("mode", [0o644, 0o440, 0o400])
def test_a_mounted_secret_is_read_where_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = mounted(tmp_path, mode)
    if mode & 0o077:
        with pytest.raises(ConfigurationError, match=f"needs {MODE_VARIABLE}=mounted"):
            read_secret_file(path, KEY)
    monkeypatch.setenv(MODE_VARIABLE, "mounted")

    assert read_secret_file(path, KEY) == "bluebell"


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602])
def test_a_mounted_secret_that_others_may_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv(MODE_VARIABLE, "mounted")

    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}"):
        read_secret_file(mounted(tmp_path, mode), KEY)


def test_another_mode_of_secrets_is_refused(secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODE_VARIABLE, "anything")

    with pytest.raises(ConfigurationError, match=f"{MODE_VARIABLE}: give one of owner, mounted"):
        read_secret_file(secret, KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_secret_of_somebody_else_is_refused(secret: Path) -> None:
    os.chown(secret, 4321, 4321)

    with pytest.raises(ConfigurationError, match=f"{KEY}: .* belongs to user 4321"):
        read_secret_file(secret, KEY)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\x00"])
def test_what_is_no_secret_is_refused(secret: Path, content: bytes) -> None:
    secret.write_bytes(content)

    with pytest.raises(ConfigurationError, match=KEY):
        read_secret_file(secret, KEY)


def test_an_absent_secret_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match=KEY):
            read_secret_file(path, KEY)


def test_the_scrape_token_is_a_secret(tmp_path: Path) -> None:
    from deployments.identity import scrape_token

    path = tmp_path / "scrape"
    path.write_text("s" * 43)
    path.chmod(0o644)
    issuer = {"issuer": "i", "audience": "a", "algorithms": ["EdDSA"], "key_file": "k"}
    identity = parse({"identity": {"issuers": [issuer], "scrape_token_file": str(path)}}).identity

    with pytest.raises(ConfigurationError, match=r"identity\.scrape_token_file: .* has mode 0644"):
        scrape_token(identity)
    path.chmod(0o600)
    assert scrape_token(identity) == "s" * 43
