"""Signatures that others published hold here, and none that is altered (RFC 7515, 7520, 8037; files of vectors)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bench.tokens import Vector, holds, read_vectors, run
from policies.errors import TokenRejected
from policies.tokens import read_head

JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
FRODO = (
    "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9h"
    "ZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3"
    "ZXB0IG9mZiB0by4"
)
RSA_7515 = {
    "kty": "RSA",
    "e": "AQAB",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2l"
    "ZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2Ca"
    "pHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4"
    "FRWyuXpoQ",
}
EC_7515 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
ED_8037 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RSA_7520 = {
    "kty": "RSA",
    "kid": "bilbo.baggins@hobbiton.example",
    "use": "sig",
    "e": "AQAB",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2"
    "wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJls"
    "de3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5"
    "gHdrNP5zw",
}
PUBLISHED: dict[str, tuple[dict[str, Any], str]] = {
    "RFC 7515 A.2, RS256": (
        RSA_7515,
        f"eyJhbGciOiJSUzI1NiJ9.{JOE}."
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
        "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d"
        "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig"
        "cN_IoypGlUPQGe77Rw",
    ),
    "RFC 7515 A.3, ES256": (
        EC_7515,
        f"eyJhbGciOiJFUzI1NiJ9.{JOE}."
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ),
    "RFC 8037 A.4, EdDSA": (
        ED_8037,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
    "RFC 7520 4.1, RS256": (
        RSA_7520,
        f"eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
        "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDk"
        "oBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9Uzp"
        "ERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogo"
        "ree7vjbU5y18kDquDg",
    ),
    "RFC 7520 4.2, PS384": (
        RSA_7520,
        f"eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.{FRODO}."
        "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OL"
        "PpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shn"
        "r2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6"
        "oD4ifKo8DYM-X72Eaw",
    ),
}
SHARED = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
HS256 = f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
NONE = f"eyJhbGciOiJub25lIn0.{JOE}."


@pytest.mark.parametrize(("key", "jws"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_signature_holds(key: dict[str, Any], jws: str) -> None:
    assert holds(jws, {"keys": [key]})


@pytest.mark.parametrize(("key", "jws"), PUBLISHED.values(), ids=PUBLISHED)
def test_an_altered_one_does_not(key: dict[str, Any], jws: str) -> None:
    head, body, signature = jws.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    for place in range(0, len(raw), 7):
        flipped = bytes(raw[:place]) + bytes([raw[place] ^ 1]) + bytes(raw[place + 1 :])
        altered = base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
        assert not holds(f"{head}.{body}.{altered}", {"keys": [key]})
    assert not holds(f"{head}.{body[:-4]}.{signature}", {"keys": [key]})
    assert not holds(f"{head}.{body}.", {"keys": [key]})
    others = [other for other, _ in PUBLISHED.values() if other["kty"] != key["kty"]]
    assert not holds(jws, {"keys": others})


def test_a_shared_secret_and_no_signature_at_all_are_never_accepted() -> None:
    secret = {"kty": "oct", "k": SHARED}
    assert not holds(HS256, {"keys": [secret]})
    assert not holds(HS256, {"keys": [secret, RSA_7515]})
    assert not holds(NONE, {"keys": [RSA_7515]})
    for jws in (HS256, NONE):
        with pytest.raises(TokenRejected):
            read_head(jws)


def test_of_two_keys_with_one_id_none_is_believed() -> None:
    jws = PUBLISHED["RFC 7520 4.1, RS256"][1]
    assert holds(jws, {"keys": [RSA_7520, EC_7515]})
    assert not holds(jws, {"keys": [RSA_7520, {**RSA_7515, "kid": RSA_7520["kid"]}]})


def vectors_in(directory: Path, jws: str, verdict: str) -> None:
    test = {"tcId": 1, "comment": "c", "jws": jws, "result": verdict, "flags": ["F"]}
    group = {"type": "JsonWebSignature", "public": ED_8037, "private": {}, "tests": [test]}
    (directory / "json_web_signature_test.json").write_text(json.dumps({"testGroups": [group]}))


def test_a_file_of_vectors_is_read_and_a_wrong_verdict_is_a_miss(tmp_path: Path) -> None:
    jws = PUBLISHED["RFC 8037 A.4, EdDSA"][1]
    for verdict, accepted, refused in (("valid", True, True), ("invalid", False, True)):
        vectors_in(tmp_path, jws, verdict)
        met = [figure.met for figure in run(tmp_path)[:2]]
        assert met == [accepted, refused], "what is accepted against the file's verdict is a miss"
    vectors_in(tmp_path, jws[:-4] + "AAAA", "valid")
    assert [figure.met for figure in run(tmp_path)[:2]] == [True, False]
    found = list(read_vectors(tmp_path / "json_web_signature_test.json"))
    assert isinstance(found[0], Vector) and found[0].flags == {"F"}
    (tmp_path / "json_web_signature_schema.json").write_text("{}")
    assert list(read_vectors(tmp_path / "json_web_signature_schema.json")) == []
