"""What is kept elsewhere: checkpoints at an anchor, segments in files, and the keys that sign, one after the other."""

from __future__ import annotations

import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.audit import AuditLog
from policies.audit_anchor import Anchor, open_anchor
from policies.audit_chain import AuditIntent
from policies.audit_checkpoints import Checkpoint, read_checkpoint, signatures_of
from policies.audit_files import segment_files, verify_export
from policies.audit_segments import Segments
from policies.audit_signing import Signer, SigningThread, signing_key
from policies.errors import ConfigurationError, Unavailable

KEY, NEXT, THIRD = (Ed25519PrivateKey.generate() for _ in range(3))


@pytest.fixture
def log(database_url: str) -> Iterator[AuditLog]:
    log = AuditLog(database_url, KEY)
    yield log
    log.close()


@pytest.fixture(params=["file", "directory"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> Anchor:
    return open_anchor(str(tmp_path / ("anchor.jsonl" if request.param == "file" else "anchor")))


def fill(log: AuditLog, count: int = 4) -> int:
    return log.append([AuditIntent(f"r{number}", "ada", "acme", "query", "v1") for number in range(count)])


def tampered(url: str, *statements: str) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


# ---- the anchor


def test_each_checkpoint_is_copied_once_and_in_order(log: AuditLog, anchor: Anchor) -> None:
    signer = Signer(log, lambda: KEY, anchor)
    assert signer.sign() is None
    assert anchor.all() == []
    fill(log)
    first = signer.sign()
    assert signer.sign() == first, "nothing new, nothing to sign"
    fill(log)
    second = signer.sign()

    assert anchor.all() == [first, second] == log.signed_checkpoints()
    assert log.verify(anchor.all()).signed == 8


def test_what_the_anchor_missed_it_gets_later(log: AuditLog, tmp_path: Path) -> None:
    blocked = tmp_path / "no"
    blocked.write_text("")
    anchor = open_anchor(str(blocked / "anchor.jsonl"))
    signer = Signer(log, lambda: KEY, anchor)
    for _ in range(2):
        fill(log)
        with pytest.raises(Unavailable):
            signer.sign()
    blocked.unlink()
    signer.sign()

    assert [each.sequence for each in anchor.all()] == [4, 8]


def test_a_record_that_was_taken_back_or_emptied_gets_no_signature_again(tmp_path: Path) -> None:
    url, anchor = f"sqlite:///{tmp_path}/audit.sqlite", open_anchor(str(tmp_path / "anchor"))
    log = AuditLog(url, KEY)
    for _ in range(2):
        fill(log)
        Signer(log, lambda: KEY, anchor).sign()
    for statements in (
        ["DELETE FROM audit_records WHERE sequence > 4", "DELETE FROM audit_checkpoints WHERE sequence > 4"],
        ["DELETE FROM audit_records", "DELETE FROM audit_checkpoints"],
    ):
        tampered(url, *statements)
        assert log.verify().ok, "from inside, nothing is missing"
        fill(log, 12)
        verdict = log.verify(anchor.all())
        assert (verdict.ok, verdict.first_bad) == (False, 8 if len(statements[0]) > 30 else 4)
        with pytest.raises(ConfigurationError, match="not what the anchor has signed"):
            Signer(log, lambda: KEY, anchor).sign()
    log.close()


def test_an_anchor_that_was_changed_is_no_anchor(log: AuditLog, tmp_path: Path) -> None:
    place = tmp_path / "anchor.jsonl"
    fill(log)
    Signer(log, lambda: KEY, open_anchor(str(place))).sign()
    line = place.read_bytes()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    place.write_bytes(line + line[:20])
    assert len(open_anchor(str(place)).all()) == 1, "a line that was not finished was never acknowledged"
    for changed in (line.replace(b'"checkpoint":4', b'"checkpoint":04'), b"{}\n", b"\xff\n", line.upper()):
        place.write_bytes(changed)
        with pytest.raises(ConfigurationError, match="not as it was written: 1"):
            open_anchor(str(place)).all()
    forged = line.replace(b'"checkpoint":4', b'"checkpoint":3')
    place.write_bytes(forged)
    assert not log.verify(open_anchor(str(place)).all()).ok


def test_an_anchor_may_be_any_store_that_has_an_address() -> None:
    anchor, same = (open_anchor("memory://evidence/rayrag") for _ in range(2))
    kept = Checkpoint(3, 1, "a" * 64, "b" * 128)
    anchor.add(kept)
    anchor.add(Checkpoint(3, 2, "c" * 64, "d" * 128))  # what is there stays

    assert same.all() == [kept]
    with pytest.raises(ConfigurationError, match="audit_anchor"):
        open_anchor("nosuchstore://x").all()


def test_only_what_is_new_is_looked_at_while_it_runs_and_all_of_it_at_a_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/audit.sqlite"
    log = AuditLog(url, KEY)
    signer = Signer(log, lambda: KEY, None)
    fill(log)
    signer.sign()
    tampered(url, "UPDATE audit_records SET actor = 'eve' WHERE sequence = 2")
    fill(log)
    assert signer.sign() is not None
    with pytest.raises(ConfigurationError, match="record 2 is not as it was"):
        Signer(log, lambda: KEY, None).sign()
    tampered(url, "UPDATE audit_records SET actor = 'eve' WHERE sequence = 8")
    fill(log)
    assert signer.sign() is not None, "8 was signed; what came later holds"
    log.close()


def test_the_thread_signs_at_its_interval_and_goes_on_after_an_error(tmp_path: Path) -> None:
    log = AuditLog(f"sqlite:///{tmp_path}/audit.sqlite", KEY)
    fails, seen = [True], []

    def key() -> Ed25519PrivateKey:
        if fails[0]:
            raise ConfigurationError("no key")
        return KEY

    fill(log)
    thread = SigningThread(Signer(log, key, None), 0.02, seen.append)
    while len(seen) < 3:
        time.sleep(0.01)
    assert log.signed_checkpoints() == [] and thread.alive
    fails[0] = False
    deadline = time.monotonic() + 10
    while not log.signed_checkpoints() and time.monotonic() < deadline:
        time.sleep(0.01)
    thread.stop()
    assert [each.sequence for each in log.signed_checkpoints()] == [4]
    assert seen[2] > 0 and not thread.alive
    log.close()


# ---- keys


def test_one_key_hands_over_to_the_next_and_either_tells_the_whole(log: AuditLog, anchor: Anchor) -> None:
    keys = [KEY]
    signer = Signer(log, lambda: keys[0], anchor)
    for following in (NEXT, THIRD):
        fill(log)
        signer.sign()
        fill(log)
        anchor.add(log.hand_over(following))
        keys[0] = following
        signer.sign()
    fill(log)
    signer.sign()

    kept = anchor.all()
    for key in (KEY, NEXT, THIRD):
        assert log.verify(kept, key.public_key()).signed == 20
        assert signatures_of(kept, key.public_key()).covered == 20
    stranger = Ed25519PrivateKey.generate()
    assert not log.verify(kept, stranger.public_key()).ok


def test_the_former_key_signs_no_more(log: AuditLog) -> None:
    fill(log)
    log.hand_over(NEXT)
    log.use_key(KEY)
    fill(log)
    with pytest.raises(ConfigurationError, match="handed to another key|does not hold"):
        log.checkpoint()
    log.use_key(NEXT)
    assert log.checkpoint() is not None


def test_nobody_hands_over_but_who_has_both_keys() -> None:
    made = Checkpoint(4, 1, "a" * 64, "", next_key=NEXT.public_key().public_bytes_raw().hex())
    ours = Checkpoint(
        *_fields(made, signature=KEY.sign(made.signed).hex(), next_signature=NEXT.sign(made.signed).hex())
    )
    no_consent = Checkpoint(*_fields(ours, next_signature=KEY.sign(made.signed).hex()))
    no_right = Checkpoint(*_fields(ours, signature=THIRD.sign(made.signed).hex()))

    assert signatures_of([ours], KEY.public_key()).first_bad is None
    assert signatures_of([no_consent], KEY.public_key()).first_bad == 4
    assert signatures_of([no_right], KEY.public_key()).first_bad == 4
    assert signatures_of([no_consent], NEXT.public_key()).first_bad == 4
    assert read_checkpoint(ours.line.encode()) == ours


def _fields(checkpoint: Checkpoint, **changed: str) -> tuple[object, ...]:
    names = ("sequence", "time", "hash", "signature", "next_key", "next_signature")
    return tuple(changed.get(name, getattr(checkpoint, name)) for name in names)


def test_a_key_file_is_made_once_and_must_be_of_the_right_kind(tmp_path: Path) -> None:
    home = tmp_path / "secrets"
    assert signing_key(home / "a.pem").private_bytes_raw() == signing_key(home / "a.pem").private_bytes_raw()
    (home / "b.pem").write_text("nothing")
    (home / "b.pem").chmod(0o600)
    with pytest.raises(ConfigurationError):
        signing_key(home / "b.pem")


# ---- segments


def test_the_record_goes_on_over_segments_that_left_the_database(log: AuditLog, anchor: Anchor, tmp_path: Path) -> None:
    signer, segments = Signer(log, lambda: KEY, anchor), Segments(log, tmp_path / "segments", "v1")
    for _ in range(3):
        fill(log)
        signed = signer.sign()
        assert signed is not None
        segments.cut(signed, "operator:ada")
        assert segments.cut(signed, "operator:ada") is None, "nothing new"
    fill(log)
    signer.sign()
    files = segment_files(tmp_path / "segments")
    assert [(each.first, each.last) for each in segments.all()] == [(1, 4), (5, 9), (10, 14)]
    assert segments.remove(keep_s=3600) == 0
    assert segments.remove(keep_s=0, now=time.time() + 1) == 14

    whole, rest = log.verify(anchor.all(), older=files), log.verify(anchor.all())
    assert (whole.ok, whole.begins, whole.count) == (True, 1, 19)
    assert (rest.ok, rest.begins, rest.count) == (True, 15, 19)
    log.export(tmp_path / "export.jsonl")
    for key in (None, KEY.public_key()):
        assert verify_export(tmp_path / "export.jsonl", key, None, files, anchor.all()).count == 19
    log.export(tmp_path / "later.jsonl")
    assert verify_export(tmp_path / "later.jsonl", KEY.public_key(), tmp_path / "export.jsonl", files).ok
    lacking = verify_export(tmp_path / "export.jsonl", KEY.public_key(), None, [files[0], files[2]])
    assert (lacking.ok, lacking.first_bad) == (False, 5)
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    files[1].write_bytes(files[1].read_bytes().replace(b'"ada"', b'"eve"', 1))
    changed = log.verify(anchor.all(), older=files)
    assert (changed.ok, changed.first_bad) == (False, 6), "5 is the line about the first segment"


def test_a_record_leaves_the_database_only_when_it_is_in_a_file(
    log: AuditLog, database_url: str, tmp_path: Path
) -> None:
    segments = Segments(log, tmp_path / "segments", "v1")
    fill(log)
    with pytest.raises(Unavailable):
        log.remove_until(4)
    signed = log.checkpoint()
    assert signed is not None
    segments.cut(signed, "operator:ada")
    with pytest.raises(Unavailable):
        log.remove_until(5)
    file = segment_files(tmp_path / "segments")[0]
    content = file.read_bytes()
    for damage in (lambda: file.write_bytes(content[:-9]), file.unlink):
        damage()
        with pytest.raises(ConfigurationError, match="missing, or not as it was written"):
            segments.remove(keep_s=0, now=time.time() + 1)
    assert log.verify().begins == 1
    file.write_bytes(content)
    assert segments.remove(keep_s=0, now=time.time() + 1) == 4
    assert segments.remove(keep_s=0, now=time.time() + 1) == 0


def test_a_directory_that_cannot_be_written_leaves_the_record_as_it_is(log: AuditLog, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fill(log)
    signed = log.checkpoint()
    assert signed is not None
    with pytest.raises(ConfigurationError, match=r"store\.audit_segments"):
        Segments(log, tmp_path / "file" / "segments", "v1").cut(signed, "operator:ada")
    assert log.verify().count == 4 and log.segment_rows() == []
