from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import pickle
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.access import AccessRule
from policies.errors import ConfigurationError, InvalidRequest, TokenRejected, Unauthenticated, Unavailable
from policies.issuers import ClaimNames, Issuer
from policies.issuing import DevelopmentIssuer, ensure_private_key
from policies.keys import MAX_KEY_SET_BYTES, WAITING, JwksEndpoint, PemFile
from policies.principals import Principal
from policies.tokens import TokenVerifier
from tests.unit.policies.forged import (
    AUDIENCE,
    ISSUER,
    KEYS,
    STRANGER,
    claims,
    encoded,
    jwk,
    private_pem,
    public_pem,
    signed,
)
from tests.unit.policies.key_server import KeyServer, serving_keys

DETAIL = "A valid bearer token is required."


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "issuer.pem"
    path.write_bytes(public_pem(KEYS["RS256"]))
    return path


@pytest.fixture(scope="module")
def verifier(pem: Path) -> TokenVerifier:
    return TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256", "PS256"), PemFile(pem))])


def reason_of(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(TokenRejected) as raised:
        verifier.verify(token)
    assert str(raised.value) == DETAIL, "the caller learns nothing about what was wrong"
    assert raised.value.__cause__ is None, "no chained error that may quote the token"
    assert not token or token not in raised.value.reason
    return raised.value.reason


@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_each_supported_key_type_is_accepted(algorithm: str, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public_pem(KEYS[algorithm]))
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, (algorithm,), PemFile(tmp_path / "key.pem"))])

    caller = verifier.verify(signed({"alg": algorithm, "typ": "JWT"}, claims(), algorithm)).principal

    assert caller == Principal("ada", "acme", frozenset({"user"}), frozenset({"finance", "leads"}))


def at(offset: float) -> Callable[[], float]:
    return lambda: int(time.time()) + offset


BAD_CLAIMS: list[tuple[str, dict[str, Any], str]] = [
    *((f"no {name}", {name: ...}, f"claim_{name}") for name in ("exp", "iat", "sub", "aud", "tenant")),
    ("no iss", {"iss": ...}, "issuer"),
    ("expired beyond leeway", {"exp": at(-32), "iat": at(-600)}, "expired"),
    ("long expired", {"exp": at(-86_400), "iat": at(-86_500)}, "expired"),
    ("exp of zero", {"exp": 0}, "expired"),
    ("exp as text", {"exp": "9999999999"}, "claim_exp"),
    ("exp as boolean", {"exp": True}, "claim_exp"),
    ("exp as null", {"exp": None}, "claim_exp"),
    ("exp as list", {"exp": [9999999999]}, "claim_exp"),
    ("exp negative", {"exp": -1}, "claim_exp"),
    ("exp beyond integers", {"exp": 10**400}, "claim_exp"),
    ("exp beyond floats", {"exp": 1e300}, "claim_exp"),
    ("lives for ever", {"exp": at(10**9)}, "lifetime"),
    ("ends before it begins", {"exp": at(10), "iat": at(20)}, "lifetime"),
    ("ends as it begins", {"exp": at(10), "iat": at(10)}, "lifetime"),
    ("iat in the future", {"iat": at(45)}, "not_yet_valid"),
    ("iat as text", {"iat": "0"}, "claim_iat"),
    ("iat as boolean", {"iat": True}, "claim_iat"),
    ("nbf in the future", {"nbf": at(45)}, "not_yet_valid"),
    ("nbf as text", {"nbf": "0"}, "claim_nbf"),
    ("nbf as null", {"nbf": None}, "claim_nbf"),
    ("another issuer", {"iss": "https://evil.example"}, "issuer"),
    ("issuer's prefix", {"iss": ISSUER[:-1]}, "issuer"),
    ("issuer and more", {"iss": ISSUER + "/"}, "issuer"),
    ("issuer in capitals", {"iss": ISSUER.upper()}, "issuer"),
    ("issuer in a list", {"iss": [ISSUER]}, "issuer"),
    ("issuer as object", {"iss": {ISSUER: 1}}, "issuer"),
    ("another audience", {"aud": "payroll"}, "audience"),
    ("audience's prefix", {"aud": "ray"}, "audience"),
    ("audience and more", {"aud": "rayrag2"}, "audience"),
    ("no audience in the list", {"aud": []}, "audience"),
    ("other audiences only", {"aud": ["payroll", "mail"]}, "audience"),
    ("audiences nested", {"aud": [["rayrag"]]}, "claim_aud"),
    ("a boolean among audiences", {"aud": ["rayrag", True]}, "claim_aud"),
    ("audience as object", {"aud": {"rayrag": 1}}, "claim_aud"),
    ("empty sub", {"sub": ""}, "claim_sub"),
    ("blank sub", {"sub": "  "}, "claim_sub"),
    ("sub as number", {"sub": 7}, "claim_sub"),
    ("sub as boolean", {"sub": True}, "claim_sub"),
    ("sub as list", {"sub": ["ada"]}, "claim_sub"),
    ("sub as null", {"sub": None}, "claim_sub"),
    ("sub too long", {"sub": "a" * 257}, "claim_sub"),
    ("sub with newline", {"sub": "ada\nadmin"}, "claim_sub"),
    ("sub with NUL", {"sub": "ada\x00"}, "claim_sub"),
    ("sub with DEL", {"sub": "ada\x7f"}, "claim_sub"),
    ("sub with a C1 control", {"sub": "ada\x85"}, "claim_sub"),
    ("sub with a lone surrogate", {"sub": "ada\ud800"}, "claim_sub"),
    ("sub with text turned around", {"sub": "ada\u202enimda"}, "claim_sub"),
    ("sub with a zero-width space", {"sub": "ad\u200ba"}, "claim_sub"),
    ("sub with a line separator", {"sub": "ada\u2028x"}, "claim_sub"),
    ("sub with space at its end", {"sub": "ada "}, "claim_sub"),
    ("tenant as number", {"tenant": 7}, "claim_tenant"),
    ("tenant as list", {"tenant": ["acme", "rival"]}, "claim_tenant"),
    ("tenant empty", {"tenant": ""}, "claim_tenant"),
    ("tenant as null", {"tenant": None}, "claim_tenant"),
    ("roles as text", {"roles": "admin"}, "claim_roles"),
    ("roles as null", {"roles": None}, "claim_roles"),
    ("roles as object", {"roles": {"admin": True}}, "claim_roles"),
    ("a number among roles", {"roles": ["user", 1]}, "claim_roles"),
    ("roles nested", {"roles": [["admin"]]}, "claim_roles"),
    ("an empty role", {"roles": [""]}, "claim_roles"),
    ("groups as text", {"groups": "finance"}, "claim_groups"),
    ("null among groups", {"groups": [None]}, "claim_groups"),
    ("a group with newline", {"groups": ["fin\nance"]}, "claim_groups"),
    ("groups kept elsewhere", {"groups": ..., "_claim_names": {"groups": "src1"}}, "distributed_claims"),
    ("claims kept in a strange place", {"_claim_names": ["groups"]}, "distributed_claims"),
    ("no list of what is kept elsewhere", {"_claim_names": None}, "distributed_claims"),
    ("too many groups to tell", {"groups": ..., "hasgroups": True}, "distributed_claims"),
    ("too many groups to tell, as text", {"groups": ..., "hasgroups": "true"}, "distributed_claims"),
    ("an identity token (Keycloak)", {"typ": "ID"}, "kind"),
    ("a refresh token (Keycloak)", {"typ": "Refresh"}, "kind"),
    ("an identity token (Cognito)", {"token_use": "id"}, "kind"),
]


def resolved(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in changes.items()}


@pytest.mark.parametrize(("changes", "reason"), [row[1:] for row in BAD_CLAIMS], ids=[row[0] for row in BAD_CLAIMS])
def test_a_wrong_claim_is_refused(verifier: TokenVerifier, changes: dict[str, Any], reason: str) -> None:
    header = {"alg": "RS256", "typ": "JWT"}
    assert verifier.verify(signed(header, claims()))

    assert reason_of(verifier, signed(header, claims(**resolved(changes)))) == reason


GOOD_CLAIMS: list[tuple[str, dict[str, Any]]] = [
    ("expired within leeway", {"exp": at(-28), "iat": at(-600)}),
    ("iat ahead within leeway", {"iat": at(28)}),
    ("nbf ahead within leeway", {"nbf": at(28)}),
    ("nbf in the past", {"nbf": at(-5)}),
    ("times with fractions", {"exp": at(600.5)}),
    ("one of many audiences", {"aud": ["mail", "rayrag"]}),
    ("no roles, no groups", {"roles": ..., "groups": ...}),
    ("empty roles", {"roles": [], "groups": []}),
    ("256 characters", {"sub": "a" * 256}),
    ("a name in another script", {"sub": "Łukasz 北京", "groups": ["Бухгалтерия"]}),
    ("a name that looks like a filter", {"sub": 'x" or tenant != "', "groups": ["'); drop table"]}),
    ("other claims kept elsewhere", {"_claim_names": {"address": "src1"}}),
    ("an access token (Keycloak)", {"typ": "Bearer"}),
    ("groups that are all there", {"hasgroups": True}),
    ("no groups, as said", {"groups": ..., "hasgroups": False}),
]


@pytest.mark.parametrize("changes", [row[1] for row in GOOD_CLAIMS], ids=[row[0] for row in GOOD_CLAIMS])
def test_a_right_claim_is_accepted(verifier: TokenVerifier, changes: dict[str, Any]) -> None:
    expected = claims(**resolved(changes))

    caller = verifier.verify(signed({"alg": "RS256"}, expected)).principal

    assert caller.subject == expected["sub"]
    assert caller.groups == frozenset(expected.get("groups", []))


BAD_HEADERS: list[tuple[str, dict[str, Any], str]] = [
    *((f"alg {name!r}", {"alg": name}, "algorithm") for name in ("none", "None", "NONE", "nOnE", "none ", "", "\x00")),
    *((f"alg {name}", {"alg": name}, "algorithm") for name in ("HS256", "HS384", "HS512", "ES256K", "rs256", "Ed448")),
    ("alg absent", {"alg": ...}, "algorithm"),
    ("alg null", {"alg": None}, "algorithm"),
    ("alg in a list", {"alg": ["RS256"]}, "algorithm"),
    ("alg of another issuer", {"alg": "RS512"}, "algorithm"),
    ("alg of another key type", {"alg": "ES256"}, "algorithm"),
    ("alg EdDSA for RSA", {"alg": "EdDSA"}, "algorithm"),
    ("crit unknown", {"crit": ["exp"], "exp": 1}, "header"),
    ("crit empty", {"crit": []}, "header"),
    ("b64 false", {"b64": False}, "header"),
    ("b64 false and critical", {"b64": False, "crit": ["b64"]}, "header"),
    ("b64 true", {"b64": True}, "header"),
    ("jku", {"jku": "https://evil.example/keys"}, "header"),
    ("x5u", {"x5u": "https://evil.example/cert"}, "header"),
    ("x5c", {"x5c": ["MIIB"]}, "header"),
    ("compressed", {"zip": "DEF"}, "header"),
    ("encrypted", {"enc": "A256GCM"}, "header"),
    ("nested", {"cty": "JWT"}, "header"),
    ("typ of a logout token", {"typ": "logout+jwt"}, "type"),
    ("typ of a signed response", {"typ": "token-introspection+jwt"}, "type"),
    ("typ empty", {"typ": ""}, "type"),
    ("typ null", {"typ": None}, "type"),
    ("typ in a list", {"typ": ["JWT"]}, "type"),
    ("kid with NUL", {"kid": "a\x00b"}, "key_id"),
    ("kid of 10 kB", {"kid": "a" * 10_000}, "key_id"),
    ("kid as object", {"kid": {"$ne": ""}}, "key_id"),
    ("kid as number", {"kid": 1}, "key_id"),
    ("kid null", {"kid": None}, "key_id"),
    ("kid empty", {"kid": ""}, "key_id"),
    ("kid with newline", {"kid": "a\r\nb"}, "key_id"),
]


@pytest.mark.parametrize(("changes", "reason"), [row[1:] for row in BAD_HEADERS], ids=[row[0] for row in BAD_HEADERS])
def test_a_wrong_header_is_refused(verifier: TokenVerifier, changes: dict[str, Any], reason: str) -> None:
    valid = {"alg": "RS256", "typ": "JWT", "kid": "one"}
    assert verifier.verify(signed(valid, claims()))
    header = {name: value for name, value in {**valid, **changes}.items() if value is not ...}

    assert reason_of(verifier, signed(header, claims())) == reason


@pytest.mark.parametrize("kind", [..., "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_an_access_tokens_type_is_accepted(verifier: TokenVerifier, kind: Any) -> None:
    header = {"alg": "RS256"} if kind is ... else {"alg": "RS256", "typ": kind}
    assert verifier.verify(signed(header, claims()))


KID_TRICKS = [
    "../../../../dev/null",
    "/etc/passwd",
    "' OR 1=1 --",
    "x' UNION SELECT 'key",
    "http://127.0.0.1:1/k",
    "$(id)",
]


@pytest.mark.parametrize("kid", KID_TRICKS)
def test_a_key_id_is_never_a_path_a_query_or_an_address(verifier: TokenVerifier, kid: str) -> None:
    header = {"alg": "RS256", "kid": kid}

    assert reason_of(verifier, signed(header, claims(), key=STRANGER)) == "signature"
    assert verifier.verify(signed(header, claims())), "with the issuer's signature the id does no harm"


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("secret", ["pem", "pem without newline", "der", "jwk", "empty"])
def test_the_public_key_is_no_shared_secret(verifier: TokenVerifier, algorithm: str, secret: str) -> None:
    key = KEYS["RS256"]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    secrets = {
        "pem": public_pem(key),
        "pem without newline": public_pem(key).strip(),
        "der": key.public_key().public_bytes(serialization.Encoding.DER, form),
        "jwk": json.dumps(jwk(key, "one", "RS256")).encode(),
        "empty": b"",
    }
    message = f"{encoded({'alg': algorithm})}.{encoded(claims())}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    signature = hmac.new(secrets[secret], message.encode(), digest).digest()

    assert reason_of(verifier, f"{message}.{encoded(signature)}") == "algorithm"


def test_an_embedded_key_is_not_believed(verifier: TokenVerifier) -> None:
    header = {"alg": "RS256", "jwk": jwk(STRANGER, "one", "RS256")}

    assert reason_of(verifier, signed(header, claims(), key=STRANGER)) == "header"
    del header["jwk"]
    assert reason_of(verifier, signed(header, claims(), key=STRANGER)) == "signature"


def with_payload(text: str | bytes) -> str:
    return signed({"alg": "RS256"}, text)


def valid_text() -> str:
    return json.dumps(claims())


SHAPES: list[tuple[str, Callable[[], str], str]] = [
    ("empty", lambda: "", "shape"),
    ("a word", lambda: "token", "shape"),
    ("two parts", lambda: ".".join(with_payload(valid_text()).split(".")[:2]), "shape"),
    ("no signature", lambda: ".".join(with_payload(valid_text()).split(".")[:2]) + ".", "shape"),
    ("four parts", lambda: with_payload(valid_text()) + ".AAAA", "shape"),
    ("five parts, as encrypted tokens have", lambda: "e30.AA.AA.AA.AA", "shape"),
    ("space at its end", lambda: with_payload(valid_text()) + " ", "shape"),
    ("newline at its end", lambda: with_payload(valid_text()) + "\n", "shape"),
    ("a newline inside", lambda: with_payload(valid_text()).replace(".", "\n.", 1), "shape"),
    ("padded", lambda: with_payload(valid_text()).replace(".", "=.", 1), "shape"),
    ("the other base64", lambda: "+/" + with_payload(valid_text()), "shape"),
    ("not ASCII", lambda: "é" + with_payload(valid_text()), "shape"),
    ("digits of another script", lambda: "٣" + with_payload(valid_text()), "shape"),
    ("1 MB", lambda: "a" * 1_000_000, "size"),
    ("too large, else valid", lambda: signed({"alg": "RS256"}, claims(pad="a" * 20_000)), "size"),
    ("no UTF-8", lambda: with_payload(b'{"iss": "\xff"}'), "payload_json"),
    ("UTF-16", lambda: with_payload(valid_text().encode("utf-16")), "payload_json"),
    ("a byte order mark", lambda: with_payload("\ufeff" + valid_text()), "payload_json"),
    ("no JSON", lambda: with_payload("hello"), "payload_json"),
    ("a list", lambda: with_payload(f"[{valid_text()}]"), "payload_json"),
    ("text", lambda: with_payload('"ada"'), "payload_json"),
    ("null", lambda: with_payload("null"), "payload_json"),
    ("more after the end", lambda: with_payload(valid_text() + "{}"), "payload_json"),
    ("NaN", lambda: with_payload(valid_text().replace('"sub"', '"x": NaN, "sub"')), "payload_json"),
    ("exp NaN", lambda: with_payload(json.dumps(claims(exp=float("nan")))), "payload_json"),
    ("exp infinite", lambda: with_payload(json.dumps(claims(exp=float("inf")))), "payload_json"),
    ("exp infinite by overflow", lambda: with_payload(valid_text().replace('"exp": ', '"exp": 1e999, "x": ')),
     "claim_exp"),
    ("5,000 digits", lambda: with_payload(valid_text().replace('"exp": ', '"exp": ' + "9" * 5000)), "payload_json"),
    ("nested 4,000 deep", lambda: with_payload('{"a":' * 2000 + "1" + "}" * 2000), "payload_json"),
    ("lists nested deep", lambda: with_payload("[" * 5000), "payload_json"),
    ("sub twice", lambda: with_payload(valid_text()[:-1] + ', "sub": "root"}'), "repeated_key"),
    ("tenant twice, escaped", lambda: with_payload(valid_text()[:-1] + ', "t\\u0065nant": "rival"}'), "repeated_key"),
    ("repeated key inside", lambda: with_payload(valid_text()[:-1] + ', "x": {"a": 1, "a": 2}}'), "repeated_key"),
    ("alg twice", lambda: signed('{"alg": "none", "alg": "RS256"}', claims()), "repeated_key"),
    ("header no JSON", lambda: signed("{alg: RS256}", claims()), "header_json"),
    ("header a list", lambda: signed('["RS256"]', claims()), "header_json"),
    ("base64 of no length", lambda: with_payload(valid_text()).replace(".", "A.", 1), "header_json"),
    ("another's signature", lambda: signed({"alg": "RS256"}, claims(), key=STRANGER), "signature"),
    ("signature of another method", lambda: signed({"alg": "RS256"}, claims(), "PS256"), "signature"),
    ("signature of nothing", lambda: with_payload(valid_text()).rpartition(".")[0] + ".AAAA", "signature"),
    ("claims changed", lambda: ".".join([encoded({"alg": "RS256"}), encoded(claims(sub="root")),
                                         with_payload(valid_text()).rpartition(".")[2]]), "signature"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "reason"), [row[1:] for row in SHAPES], ids=[row[0] for row in SHAPES])
def test_a_malformed_token_is_refused(verifier: TokenVerifier, make: Callable[[], str], reason: str) -> None:
    assert verifier.verify(with_payload(valid_text()))
    begun = time.perf_counter()

    assert reason_of(verifier, make()) == reason
    assert time.perf_counter() - begun < 1


def test_the_last_character_of_a_signature_is_checked_whole(verifier: TokenVerifier) -> None:
    token = with_payload(valid_text())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    accepted = [last for last in alphabet if _accepts(verifier, token[:-1] + last)]

    assert accepted == [token[-1]], "unused bits would give one token many spellings"


def _accepts(verifier: TokenVerifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except Unauthenticated:
        return False
    return True


@pytest.mark.parametrize("token", [None, b"a.b.c", 7, ["a.b.c"]])
def test_what_is_no_text_is_refused(verifier: TokenVerifier, token: Any) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


def test_a_zero_signature_of_an_elliptic_curve_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public_pem(KEYS["ES256"]))
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("ES256",), PemFile(tmp_path / "key.pem"))])
    assert verifier.verify(signed({"alg": "ES256"}, claims(), "ES256"))

    message = f"{encoded({'alg': 'ES256'})}.{encoded(claims())}"
    for signature in (bytes(64), bytes(63) + b"\x01", b"", bytes(65)):
        assert reason_of(verifier, f"{message}.{encoded(signature) or 'AA'}") == "signature"


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=80))
def test_no_token_is_a_server_error(verifier: TokenVerifier, header: bytes, payload: bytes, signature: bytes) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(f"{encoded(header)}.{encoded(payload)}.{encoded(signature)}")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50)
@given(st.sampled_from(["iss", "aud", "sub", "iat", "exp", "nbf", "tenant", "roles", "groups", "typ"]), json_values)
def test_no_claim_is_a_server_error(verifier: TokenVerifier, name: str, value: Any) -> None:
    token = signed({"alg": "RS256"}, json.dumps(claims(**{name: value})))
    try:
        caller = verifier.verify(token).principal
    except Unauthenticated:
        return
    named = claims(**{name: value})
    assert (caller.subject, caller.tenant) == tuple(unicodedata.normalize("NFC", named[n]) for n in ("sub", "tenant"))


def test_a_rejection_crosses_processes_with_its_reason() -> None:
    copy = pickle.loads(pickle.dumps(TokenRejected("expired")))

    assert isinstance(copy, TokenRejected)
    assert issubclass(TokenRejected, Unauthenticated)
    assert (copy.reason, copy.detail, str(copy)) == ("expired", DETAIL, DETAIL)


def test_a_fixed_tenant_wins_over_the_claim(pem: Path) -> None:
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem), tenant="acme")])

    assert verifier.verify(signed({"alg": "RS256"}, claims(tenant="rival"))).principal.tenant == "acme"
    assert verifier.verify(signed({"alg": "RS256"}, claims(tenant=...))).principal.tenant == "acme"


def test_nested_and_renamed_claims_are_found(pem: Path) -> None:
    names = ClaimNames(tenant="https://id.example/org", roles="realm_access.roles", groups="memberOf")
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem), names)])
    token = claims(roles=["admin"], groups=["x"], tenant="rival", memberOf=["g"], realm_access={"roles": ["user"]})
    token["https://id.example/org"] = "acme"

    caller = verifier.verify(signed({"alg": "RS256"}, token)).principal

    assert caller == Principal("ada", "acme", frozenset({"user"}), frozenset({"g"}))


@pytest.mark.parametrize("elsewhere", ["realm_access", "realm_access.groups", "realm_access.groups.all"])
def test_nested_groups_that_are_kept_elsewhere_are_not_done_without(pem: Path, elsewhere: str) -> None:
    names = ClaimNames(groups="realm_access.groups.all")
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem), names)])

    assert verifier.verify(signed({"alg": "RS256"}, claims(_claim_names={"realm": "src1"})))
    token = signed({"alg": "RS256"}, claims(_claim_names={elsewhere: "src1"}))
    assert reason_of(verifier, token) == "distributed_claims"
    token = signed({"alg": "RS256"}, claims(hasgroups=True))
    assert reason_of(verifier, token) == "distributed_claims"


def test_names_are_spelt_as_in_access_rules(verifier: TokenVerifier) -> None:
    decomposed = {"sub": "Zoe\u0301", "tenant": "cafe\u0301", "groups": ["e\u0301quipe"], "roles": ["cle\u0301"]}

    caller = verifier.verify(signed({"alg": "RS256"}, claims(**decomposed))).principal

    assert caller == Principal("Zo\u00e9", "caf\u00e9", frozenset({"cl\u00e9"}), frozenset({"\u00e9quipe"}))
    assert not AccessRule.of(["everyone"], ["group:e\u0301quipe"]).permits(caller)


def test_ten_thousand_groups_are_kept_and_one_more_is_refused(pem: Path) -> None:
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem))], max_token_bytes=500_000)
    groups = [f"g{number}" for number in range(10_000)]

    assert len(verifier.verify(signed({"alg": "RS256"}, claims(groups=groups))).principal.groups) == 10_000
    assert reason_of(verifier, signed({"alg": "RS256"}, claims(groups=[*groups, "g"]))) == "claim_groups"


def test_an_issuers_key_signs_for_no_other_issuer(tmp_path: Path, pem: Path) -> None:
    (tmp_path / "other.pem").write_bytes(public_pem(STRANGER))
    other = Issuer("https://other.example", AUDIENCE, ("RS256",), PemFile(tmp_path / "other.pem"), tenant="rival")
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem), tenant="acme"), other])

    assert verifier.verify(signed({"alg": "RS256"}, claims(iss="https://other.example"), key=STRANGER))
    assert reason_of(verifier, signed({"alg": "RS256"}, claims(), key=STRANGER)) == "signature"
    assert reason_of(verifier, signed({"alg": "RS256"}, claims(iss="https://other.example"))) == "signature"


def test_a_key_of_the_wrong_kind_for_the_algorithm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(public_pem(KEYS["ES384"]))
    verifier = TokenVerifier([Issuer(ISSUER, AUDIENCE, ("ES256", "ES384", "RS256"), PemFile(tmp_path / "key.pem"))])

    assert verifier.verify(signed({"alg": "ES384"}, claims(), "ES384"))
    assert reason_of(verifier, signed({"alg": "ES256"}, claims(), "ES256")) == "key_type"
    assert reason_of(verifier, signed({"alg": "RS256"}, claims())) == "key_type"


POWERS = math.prod((2, 11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157))


def rsa_pem(modulus: int, exponent: int = 65_537) -> bytes:
    public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "make",
    [
        lambda: public_pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),
        lambda: public_pem(ec.generate_private_key(ec.SECP256K1())),
        lambda: rsa_pem(POWERS * 2**1900 // POWERS * POWERS + pow(65_537, 4711, POWERS)),
        lambda: rsa_pem(STRANGER.public_key().public_numbers().n, 3),
        lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        lambda: b"",
    ],
    ids=["RSA of 1024 bits", "another curve", "RSA of a weak chip", "RSA with the exponent 3", "no key", "empty"],
)
def test_a_weak_or_broken_key_stops_the_start(tmp_path: Path, make: Callable[[], bytes]) -> None:
    (tmp_path / "key.pem").write_bytes(make())
    with pytest.raises(ConfigurationError, match=r"key\.pem"):
        PemFile(tmp_path / "key.pem")


def test_wrong_settings_stop_the_start(pem: Path) -> None:
    issuer = Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem))
    with pytest.raises(ConfigurationError):
        TokenVerifier([])
    with pytest.raises(ConfigurationError):
        TokenVerifier([issuer, issuer])
    for algorithms in ((), ("none",), ("HS256",), ("RS256", "HS256")):
        with pytest.raises(ConfigurationError, match="allowed"):
            Issuer(ISSUER, AUDIENCE, algorithms, PemFile(pem))
    for tenant in ("", "acme ", "ac\u200bme"):
        with pytest.raises(ConfigurationError, match="tenant"):
            Issuer(ISSUER, AUDIENCE, ("RS256",), PemFile(pem), tenant=tenant)
    with pytest.raises(ConfigurationError):
        PemFile(pem.with_name("absent.pem"))


# --- key sets -------------------------------------------------------------------------------------------------


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    with serving_keys() as state:
        yield state


def over(endpoint: JwksEndpoint, *algorithms: str) -> TokenVerifier:
    return TokenVerifier([Issuer(ISSUER, AUDIENCE, algorithms or ("RS256", "ES256", "PS256"), endpoint)])


def token_with(kid: str | None, algorithm: str = "RS256", key: Any = None) -> str:
    header = {"alg": algorithm} if kid is None else {"alg": algorithm, "kid": kid}
    return signed(header, claims(), algorithm, key)


def test_a_key_set_is_fetched_once_for_many_tokens(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256"), jwk(KEYS["ES256"], "two", "ES256")]
    verifier = over(JwksEndpoint(key_server.uri))

    with ThreadPoolExecutor(WAITING) as pool:
        tokens = [token_with("one"), token_with("two", "ES256")] * 20
        assert len(list(pool.map(verifier.verify, tokens))) == 40

    assert key_server.fetches == 1


def test_a_flood_of_unknown_key_ids_is_one_fetch(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    verifier = over(JwksEndpoint(key_server.uri, cooldown_s=0.2))
    verifier.verify(token_with("one"))
    time.sleep(0.25)

    begun = time.monotonic()
    for number in range(50):
        assert reason_of(verifier, token_with(f"unknown{number}")) == "unknown_key"
        assert verifier.verify(token_with("one")), "good keys stay"

    assert key_server.fetches <= 2 + int((time.monotonic() - begun) / 0.2)


def test_a_rotated_key_is_found_and_a_removed_one_refused(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    verifier = over(JwksEndpoint(key_server.uri, cooldown_s=0))
    verifier.verify(token_with("one"))

    key_server.keys = [jwk(STRANGER, "two", "RS256")]

    assert verifier.verify(token_with("two", key=STRANGER))
    assert reason_of(verifier, token_with("one")) == "unknown_key"


def test_a_removed_key_is_refused_when_its_set_is_old(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    verifier = over(JwksEndpoint(key_server.uri, lifespan_s=0.1, cooldown_s=0))
    verifier.verify(token_with("one"))
    key_server.keys = [jwk(STRANGER, "two", "RS256")]
    time.sleep(0.15)

    assert reason_of(verifier, token_with("one")) == "unknown_key"


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("an error", {"status": 500}),
    ("no JSON", {"body": b"<html>"}),
    ("a list", {"body": b"[]"}),
    ("no keys", {"body": b'{"keys": []}'}),
    ("keys of no use", {"body": b'{"keys": [1, {"kty": "oct", "k": "AAAA", "kid": "one"}, {"kty": "RSA"}]}'}),
    ("no text", {"body": b"\xff\xfe\x00"}),
    ("nested deep", {"body": b"[" * 100_000}),
    ("a redirect", {"status": 302, "location": "http://127.0.0.1:1/"}),
    ("slow", {"delay_s": 1.0}),
]


@pytest.mark.parametrize("change", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_known_keys_serve_on_while_the_endpoint_is_broken(key_server: KeyServer, change: dict[str, Any]) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    verifier = over(JwksEndpoint(key_server.uri, lifespan_s=0.05, cooldown_s=0, timeout_s=0.7))
    verifier.verify(token_with("one"))
    for name, value in change.items():
        setattr(key_server, name, value)
    time.sleep(0.06)

    assert verifier.verify(token_with("one"))
    assert reason_of(verifier, token_with("unknown")) == "unknown_key", "401, not 503: the caller's token is at fault"
    begun = time.monotonic()
    assert verifier.verify(token_with("one"))
    assert time.monotonic() - begun < 0.5, "after the first failure nobody waits"


@pytest.mark.parametrize("change", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_without_any_key_set_the_provider_is_unavailable(key_server: KeyServer, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(key_server, name, value)
    verifier = over(JwksEndpoint(key_server.uri, timeout_s=0.1))

    with pytest.raises(Unavailable) as raised:
        verifier.verify(token_with("one"))

    assert "127.0.0.1" not in str(raised.value)


def test_a_key_set_that_drips_holds_nobody_up(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    key_server.drip_s = 0.02  # each step is quick, all of them would take ten seconds
    verifier = over(JwksEndpoint(key_server.uri, cooldown_s=0, deadline_s=0.5))
    begun = time.monotonic()

    with pytest.raises(Unavailable):
        verifier.verify(token_with("one"))

    assert time.monotonic() - begun < 2
    key_server.drip_s = 0.0
    time.sleep(0.2)
    assert verifier.verify(token_with("one")), "the next fetch does not wait for the one that dripped"


def test_a_key_set_over_its_limit_is_not_read(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    key_server.body = b" " * MAX_KEY_SET_BYTES + key_server.content()

    with pytest.raises(Unavailable):
        over(JwksEndpoint(key_server.uri)).verify(token_with("one"))


def test_keys_do_not_serve_on_for_ever(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], "one", "RS256")]
    verifier = over(JwksEndpoint(key_server.uri, lifespan_s=0.02, cooldown_s=0, max_stale_s=0.1))
    verifier.verify(token_with("one"))
    key_server.status = 500
    time.sleep(0.15)

    with pytest.raises(Unavailable):
        verifier.verify(token_with("one"))
    key_server.status = 200
    assert verifier.verify(token_with("one"))


WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)
UNUSABLE: list[tuple[str, dict[str, Any], str]] = [
    ("for encryption", jwk(KEYS["RS256"], "one", "RS256", use="enc"), "RS256"),
    ("for signing only", jwk(KEYS["RS256"], "one", "RS256", key_ops=["sign"]), "RS256"),
    ("pinned to another algorithm", jwk(KEYS["RS256"], "one", "RS256", alg="PS256"), "RS256"),
    ("pinned to a shared secret's", jwk(KEYS["RS256"], "one", "RS256", alg="HS256"), "RS256"),
    ("of a wrong type", jwk(KEYS["ES256"], "one", "ES256"), "RS256"),
    ("too short", jwk(WEAK, "one", "RS256", key_ops=["verify"]), "RS256"),
    ("with an id that is no text", {**jwk(KEYS["RS256"], None, "RS256"), "kid": 1}, "RS256"),
]


@pytest.mark.parametrize(("entry", "algorithm"), [row[1:] for row in UNUSABLE], ids=[row[0] for row in UNUSABLE])
def test_a_published_key_is_used_for_its_purpose_only(
    key_server: KeyServer, entry: dict[str, Any], algorithm: str
) -> None:
    key = WEAK if entry.get("n") == jwk(WEAK, None, "RS256")["n"] else KEYS["RS256"]
    key_server.keys = [entry, jwk(STRANGER, "other", "RS256")]

    assert reason_of(over(JwksEndpoint(key_server.uri)), token_with("one", algorithm, key)) == "unknown_key"


def test_a_token_without_key_id_needs_the_only_suitable_key(key_server: KeyServer) -> None:
    key_server.keys = [jwk(KEYS["RS256"], None, "RS256"), jwk(KEYS["ES256"], "two", "ES256")]
    assert over(JwksEndpoint(key_server.uri)).verify(token_with(None))

    key_server.keys.append(jwk(STRANGER, "three", "RS256"))
    assert reason_of(over(JwksEndpoint(key_server.uri)), token_with(None)) == "unknown_key"


def test_a_private_key_published_by_mistake_verifies_as_its_public_half(key_server: KeyServer) -> None:
    kinds: dict[str, Any] = jwt.algorithms.get_default_algorithms()
    entry = kinds["RS256"].to_jwk(KEYS["RS256"], as_dict=True)
    key_server.keys = [{**entry, "kid": "one", "key_ops": ["sign", "verify"]}]

    assert over(JwksEndpoint(key_server.uri)).verify(token_with("one"))


def test_nothing_a_header_points_to_is_fetched(key_server: KeyServer, verifier: TokenVerifier) -> None:
    key_server.keys = [jwk(STRANGER, "one", "RS256")]
    for name in ("jku", "x5u", "kid"):
        header = {"alg": "RS256", name: key_server.uri}
        assert reason_of(verifier, signed(header, claims(), key=STRANGER)) in ("header", "signature")
    assert reason_of(verifier, signed({"alg": "RS256"}, claims(iss=key_server.uri), key=STRANGER)) == "issuer"

    assert key_server.fetches == 0


@pytest.mark.parametrize(
    "uri",
    [
        "http://id.example/keys",
        "file:///etc/passwd",
        "ftp://id.example/k",
        "data:,{}",
        "https://u:p@id.example/",
        "",
        "//",
    ],
)
def test_keys_come_over_a_private_channel(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="jwks_uri"):
        JwksEndpoint(uri)


def test_an_https_address_is_taken() -> None:
    assert JwksEndpoint("https://id.example/keys")


# --- the development issuer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
def test_a_development_token_is_accepted(tmp_path: Path, algorithm: str) -> None:
    key_file = tmp_path / "data" / "issuer.pem"
    names = ClaimNames(tenant="org", roles="realm_access.roles", groups="memberOf")
    issuer = DevelopmentIssuer.create(key_file, "dev", AUDIENCE, names, ["RS256", algorithm])
    verifier = TokenVerifier([Issuer("dev", AUDIENCE, (algorithm,), PemFile(key_file), names, development=True)])

    caller = verifier.verify(issuer.sign("ada", "acme", ["user", "user"], ["finance"])).principal

    assert caller == Principal("ada", "acme", frozenset({"user"}), frozenset({"finance"}))


def test_the_development_key_is_its_owners_alone(tmp_path: Path) -> None:
    key_file = tmp_path / "data" / "issuer.pem"
    previous = os.umask(0)
    try:
        DevelopmentIssuer.create(key_file, "dev", AUDIENCE)
    finally:
        os.umask(previous)

    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["issuer.pem"], "no draft is left"


def test_a_second_create_keeps_the_key(tmp_path: Path) -> None:
    key_file = tmp_path / "issuer.pem"
    first = DevelopmentIssuer.create(key_file, "dev", AUDIENCE)
    content = key_file.read_bytes()
    DevelopmentIssuer.create(key_file, "dev", AUDIENCE)
    verifier = TokenVerifier([Issuer("dev", AUDIENCE, ("EdDSA",), PemFile(key_file))])

    assert key_file.read_bytes() == content
    assert verifier.verify(first.sign("ada", "acme"))


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    key_file = tmp_path / "data" / "issuer.pem"
    with ThreadPoolExecutor(16) as pool:
        issuers = list(pool.map(lambda _: DevelopmentIssuer.create(key_file, "dev", AUDIENCE), range(16)))
    verifier = TokenVerifier([Issuer("dev", AUDIENCE, ("EdDSA",), PemFile(key_file))])

    assert all(verifier.verify(issuer.sign("ada", "acme")) for issuer in issuers)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    key_file = tmp_path / "issuer.pem"
    DevelopmentIssuer.create(key_file, "dev", AUDIENCE)
    key_file.chmod(mode)

    for use in (lambda: DevelopmentIssuer.create(key_file, "dev", AUDIENCE), lambda: PemFile(key_file)):
        with pytest.raises(ConfigurationError, match="chmod 600"):
            use()


def test_a_directory_where_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(ConfigurationError, match="chmod 700"):
        ensure_private_key(tmp_path / "open" / "issuer.pem")


def test_a_development_issuer_signs_with_its_own_kinds_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="EdDSA or ES256"):
        DevelopmentIssuer.create(tmp_path / "issuer.pem", "dev", AUDIENCE, algorithms=["RS256"])
    (tmp_path / "rsa.pem").write_bytes(private_pem(KEYS["RS256"]))
    (tmp_path / "rsa.pem").chmod(0o600)
    with pytest.raises(ConfigurationError, match=r"rsa\.pem"):
        ensure_private_key(tmp_path / "rsa.pem")
    with pytest.raises(ConfigurationError, match=r"rsa\.pem"):
        DevelopmentIssuer(tmp_path / "rsa.pem", "dev", AUDIENCE)


@pytest.mark.parametrize(
    "wrong",
    [{"subject": ""}, {"tenant": "a\nb"}, {"roles": ["x" * 300]}, {"ttl_s": 0}, {"ttl_s": -5}, {"ttl_s": 10**9}],
)
def test_no_token_is_signed_that_would_be_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    issuer = DevelopmentIssuer.create(tmp_path / "issuer.pem", "dev", AUDIENCE)

    with pytest.raises(InvalidRequest):
        issuer.sign(**{"subject": "ada", "tenant": "acme", **wrong})
