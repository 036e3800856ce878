"""Tokens as attackers make them: each is refused as a bad token, quickly, and nothing is fetched for it.

One world per kind of key, its issuer found over a real key endpoint; every hostile token is next to one that passes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies.errors import Unauthenticated
from policies.identity import Identity
from policies.issuers import Issuer
from policies.keys import JwksEndpoint
from policies.tokens import TokenVerifier
from tests.unit.policies.forged import AUDIENCE, ISSUER, KEYS, STRANGER, claims, encoded, jwk, public_pem, signed

SIGNED_WITH = {
    "RS256": "RS256",
    "RS384": "RS256",
    "RS512": "RS256",
    "PS256": "RS256",
    "PS384": "RS256",
    "PS512": "RS256",
    "ES256": "ES256",
    "ES384": "ES384",
    "EdDSA": "EdDSA",
}
"""Algorithms, and which of the keys signs with each."""
FOREIGN: dict[str, Any] = {
    "RS256": STRANGER,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": Ed25519PrivateKey.generate(),
}
ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
}
"""Of the groups on the curves (NIST SP 800-186)."""
ONES = b"\xff"
SLOW_S = 0.25
"""No token may take longer, on a machine that does other work besides; the median below is the real measure."""


def kid_of(algorithm: str) -> str:
    return f"key-{SIGNED_WITH[algorithm]}"


def sign(header: Any, payload: Any, algorithm: str = "RS256", key: Any = None) -> str:
    return signed(header, payload, algorithm, key or KEYS[SIGNED_WITH[algorithm]])


def good(algorithm: str = "RS256", header: dict[str, Any] | None = None, **changes: Any) -> str:
    return sign(
        {"alg": algorithm, "typ": "JWT", "kid": kid_of(algorithm), **(header or {})}, claims(**changes), algorithm
    )


@dataclass
class World:
    """Who is asked, how often the issuer's keys were fetched, and what came to the attacker's address."""

    identity: Identity
    fetches: list[str]
    attacked: list[str]
    attacker: str


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    fetches: list[str] = []
    attacked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            (fetches if self.path == "/keys" else attacked).append(self.path)
            self.send_response(200)
            self.end_headers()
            key_set = [jwk(KEYS[name], f"key-{name}", name) for name in ("RS256", "ES256", "ES384", "EdDSA")]
            stolen = [jwk(key, f"key-{name}", name) for name, key in FOREIGN.items()]
            self.wfile.write(json.dumps({"keys": key_set if self.path == "/keys" else stolen}).encode())

        def log_message(self, *_args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        # Far apart, so that a fetch during the tests is one that a token caused.
        endpoint = JwksEndpoint(f"{address}/keys", lifespan_s=3600, cooldown_s=3600)
        identity = Identity(TokenVerifier([Issuer(ISSUER, AUDIENCE, tuple(SIGNED_WITH), endpoint)]))
        identity.verify(good())
        yield World(identity, fetches, attacked, f"{address}/attacker")
        server.shutdown()
        thread.join()


# ---- the tokens


Hostile = Iterator[tuple[str, str]]


def secrets_of(key: Any, name: str) -> dict[str, bytes]:
    """Everything public about a key that a library may be talked into taking for a shared secret."""
    public = key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    entry = jwk(key, f"key-{name}", name)
    der = public.public_bytes(serialization.Encoding.DER, form)
    pem = public_pem(key)
    found = {
        "PEM": pem,
        "PEM without its last line end": pem.strip(),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "DER": der,
        "DER in base64": base64.b64encode(der),
        "JWK": json.dumps(entry).encode(),
        "JWK, sorted and tight": json.dumps(entry, sort_keys=True, separators=(",", ":")).encode(),
        "key set": json.dumps({"keys": [entry]}).encode(),
        "nothing": b"",
        "key id": f"key-{name}".encode(),
    }
    if name == "EdDSA":
        raw = serialization.Encoding.Raw
        found["raw point"] = public.public_bytes(raw, serialization.PublicFormat.Raw)
    return found


def confused_algorithms() -> Hostile:
    digests = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
    for name in ("RS256", "ES256", "ES384", "EdDSA"):
        for said, secret in secrets_of(KEYS[name], name).items():
            for algorithm, digest in digests.items():
                message = f"{encoded({'alg': algorithm, 'typ': 'JWT', 'kid': f'key-{name}'})}.{encoded(claims())}"
                mac = hmac.new(secret, message.encode(), digest).digest()
                yield f"{algorithm} with the {said} of {name}", f"{message}.{encoded(mac)}"
    nones = ("none", "None", "NONE", "nOnE", "none ", " none", "none\x00", "", "null", "\u0274one", "NoNe")
    others = (
        "HS1",
        "RS1",
        "RS",
        "rs256",
        "Rs256",
        "RS256 ",
        "RS256\n",
        "ES256K",
        "ES512",
        "Ed25519",
        "Ed448",
        "RSA-OAEP",
        "dir",
        "A256KW",
        "A128GCM",
        "PBES2-HS256+A128KW",
        "ECDH-ES",
        "../RS256",
        "RS256;HS256",
    )
    for name in (*nones, *others):
        header = {"alg": name, "typ": "JWT", "kid": "key-RS256"}
        message = f"{encoded(header)}.{encoded(claims())}"
        yield f"alg {name!a}, no signature", f"{message}."
        yield f"alg {name!a}, a signature", sign(header, claims())
    for name, value in {
        "absent": ...,
        "null": None,
        "number": 256,
        "list": ["RS256"],
        "true": True,
        "object": {},
    }.items():
        header = {"alg": value, "typ": "JWT", "kid": "key-RS256"}
        yield f"alg {name}", sign({k: v for k, v in header.items() if v is not ...}, claims())


def wrong_keys() -> Hostile:
    for says in SIGNED_WITH:
        for signs in SIGNED_WITH:
            if says != signs:
                header = {"alg": says, "typ": "JWT", "kid": kid_of(signs)}
                yield f"says {says}, signed with {signs}", sign(header, claims(), signs)
        foreign = FOREIGN[SIGNED_WITH[says]]
        yield f"{says} by a stranger", sign({"alg": says, "kid": kid_of(says)}, claims(), says, foreign)
        yield f"{says} by a stranger, no key id", sign({"alg": says}, claims(), says, foreign)
        message = f"{encoded({'alg': says, 'typ': 'JWT', 'kid': kid_of(says)})}.{encoded(claims())}"
        for size in (1, 32, 63, 64, 65, 96, 256):
            yield f"{says}, {size} zeros", f"{message}.{encoded(bytes(size))}"
            yield f"{says}, {size} ones", f"{message}.{encoded(ONES * size)}"


def curves() -> Hostile:
    for name, order in ORDERS.items():
        size = 32 if name == "ES256" else 48
        token = good(name)
        message, _, signature = token.rpartition(".")
        r, s = (int.from_bytes(half) for half in halves(signature, size))
        values = {
            "r=0": (0, s),
            "s=0": (r, 0),
            "r=s=0": (0, 0),
            "r=s=1": (1, 1),
            "r=n": (order, s),
            "s=n": (r, order),
            "r=n+r": ((order + r) % 2 ** (8 * size), s),
            "swapped": (s, r),
            "r=1": (1, s),
            "s=1": (r, 1),
            "r=n-1": (order - 1, s),
            "all ones": (2 ** (8 * size) - 1, 2 ** (8 * size) - 1),
        }
        for said, (left, right) in values.items():
            yield f"{name} {said}", f"{message}.{encoded(left.to_bytes(size) + right.to_bytes(size))}"
        der = KEYS[name].sign(message.encode(), ec.ECDSA(hashed(name)))
        yield f"{name} in DER", f"{message}.{encoded(der)}"
        yield f"{name} with a byte more", f"{message}.{encoded(r.to_bytes(size) + s.to_bytes(size) + b'0')}"
        yield f"{name} with a byte less", f"{message}.{encoded((r.to_bytes(size) + s.to_bytes(size))[:-1])}"
        yield f"{name} padded in front", f"{message}.{encoded(r.to_bytes(size + 1) + s.to_bytes(size + 1))}"


def halves(signature: str, size: int) -> tuple[bytes, bytes]:
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    return raw[:size], raw[size:]


def hashed(name: str) -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256() if name == "ES256" else hashes.SHA384()


def wrong_claims() -> Hostile:
    now = int(time.time())
    for name in ("iss", "aud", "sub", "exp", "iat", "tenant"):
        for said, value in {
            "absent": ...,
            "null": None,
            "true": True,
            "false": False,
            "object": {},
            "nested": [[]],
            "empty": "",
            "blank": " ",
            "number 0": 0,
            "empty list": [],
        }.items():
            yield f"{name} {said}", good(**{name: value})
    for name in ("exp", "iat", "nbf"):
        for value in ("9999999999", "", [now], {"$gt": 0}, True, None, -1, 1e300, 10**400, -(10**20), 2**53):
            yield f"{name} {str(value)[:20]}", good(**{name: value})
    for skew in (90, 120, 3600, 10**8):
        yield f"expired {skew} s ago", good(iat=now - skew - 600, exp=now - skew - 1)
        yield f"issued in {skew} s", good(iat=now + skew + 2, exp=now + skew + 600)
        yield f"valid in {skew} s", good(nbf=now + skew + 2)
    yield "lives for ever", good(exp=now + 10**9)
    yield "lives a day and a second", good(iat=now, exp=now + 86_401)
    yield "ends before it begins", good(iat=now, exp=now - 1)
    yield "sub like a service's", good(sub="service:indexer")
    yield "too many groups to tell", good(groups=..., hasgroups=True)
    yield "sources that are no object", good(_claim_names=["groups"])
    for value in (7, "", ["a"], {}, "x" * 300):
        yield f"jti {str(value)[:10]}", good(jti=value)


def wrong_names() -> Hostile:
    for name, right in (("iss", ISSUER), ("aud", AUDIENCE)):
        variants = [
            right[:-1],
            right[1:],
            right + "/",
            right + ".evil.example",
            " " + right,
            right + " ",
            right.upper(),
            right + "\x00",
            right.replace("a", "\u0430"),
            f"x{right}",
            "*",
            right + "," + right,
            f'["{right}"]',
        ]
        for value in variants:
            yield f"{name} {value!a}", good(**{name: value})
            if name == "aud":
                yield f"aud listed {value!a}", good(aud=[value])
    yield "aud of another application", good(aud=["payroll", "mail"])
    yield "aud a list with a number", good(aud=[AUDIENCE, 7])
    yield "iss in a list", good(iss=[ISSUER])
    unseen = ("\x00", "\n", "\x7f", "\x85", "\u200b", "\u202e", "\u2028", "\ufeff", "\U000e0041", "\ud800")
    for name in ("sub", "tenant"):
        for character in unseen:
            yield f"{name} with {character!a}", good(**{name: f"a{character}b"})
        yield f"{name} too long", good(**{name: "a" * 257})
    for name in ("roles", "groups"):
        for value in (
            "admin",
            None,
            {"admin": True},
            ["user", 1],
            [["admin"]],
            [""],
            [None],
            ["a\nb"],
            ["a" * 300],
            7,
            True,
        ):
            yield f"{name} {str(value)[:20]!a}", good(**{name: value})
        yield f"{name} kept elsewhere", good(**{name: ..., "_claim_names": {name: "s"}, "_claim_sources": {"s": {}}})


def other_kinds() -> Hostile:
    """J9: tokens that are genuine, and for something else."""
    for said, changes in {
        "identity token (Keycloak)": {"typ": "ID"},
        "refresh token (Keycloak)": {"typ": "Refresh"},
        "offline token (Keycloak)": {"typ": "Offline"},
        "logout token (Keycloak)": {"typ": "Logout"},
        "identity token (Cognito)": {"token_use": "id"},
        "identity token (OpenID Connect)": {"nonce": "n", "at_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"},
        "identity token with a code's hash": {"c_hash": "MTIzNDU2Nzg5MDEyMzQ1Ng"},
        "another application's": {"aud": "payroll"},
        "a session of another audience": {"aud": "rayrag-sessions"},
        "a service's (Entra ID)": {"idtyp": "app"},
        "a service's (Auth0)": {"gty": "client-credentials"},
        "a service's (Okta)": {"cid": "ada"},
        "a service's (RFC 9068)": {"client_id": "ada"},
        "a service's (Keycloak)": {"preferred_username": "service-account-cron"},
    }.items():
        yield said, good(**changes)
    for kind in (
        "logout+jwt",
        "id+jwt",
        "token-introspection+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "JOSE",
        "JOSE+JSON",
        "",
        " ",
    ):
        yield f"typ {kind!a}", good(header={"typ": kind})
    for kind in (None, 7, ["JWT"], {}, True):
        yield f"typ {kind!a}", good(header={"typ": kind})
    yield "Ray's own token", "3f1f6a0f6d2e4c5ca1c7a3f5b9d8e7f60123456789abcdef0123456789abcdef"
    yield "a password", "hunter2"
    yield "basic credentials", base64.b64encode(b"ada:secret").decode()


def wrong_headers(attacker: str) -> Hostile:
    own = {name: jwk(key, f"key-{name}", name) for name, key in FOREIGN.items()}
    for name, entry in own.items():
        signs = lambda more, name=name: sign({"alg": name, **more}, claims(), name, FOREIGN[name])  # noqa: E731
        yield f"jwk inside, {name}", signs({"jwk": entry})
        yield f"jku, {name}", signs({"jku": attacker, "kid": f"key-{name}"})
        yield f"x5u, {name}", signs({"x5u": attacker})
        yield f"kid an address, {name}", signs({"kid": attacker})
    for value in (["exp"], [], ["b64"], "exp", None, {"exp": 1}, ["http://example.com/UNDEFINED"]):
        yield f"crit {value!a}", good(header={"crit": value, "exp": 1})
    for value in (False, True, None, "false"):
        yield f"b64 {value!a}", good(header={"b64": value})
    for name, value in {"x5c": ["MIIB"], "zip": "DEF", "enc": "A256GCM", "cty": "JWT"}.items():
        yield f"{name} in the header", good(header={name: value})
    kids = (
        "../../../../dev/null",
        "/etc/passwd",
        "' OR 1=1 --",
        "x' UNION SELECT 'key",
        "$(id)",
        "|id",
        "key-RS256' --",
        "file:///etc/passwd",
        "data:,{}",
        "gopher://127.0.0.1:1",
        "%00",
        "KEY-RS256",
        "key-RS25",
        "key-RS256x",
    )
    for kid in kids:
        yield f"kid {kid}", sign({"alg": "RS256", "kid": kid}, claims(), "RS256", STRANGER)
    for kid in (
        "a\x00b",
        "a" * 10_000,
        "a\r\nb",
        "",
        "key-RS256\n",
        "\u00e9",
        {"$ne": ""},
        1,
        None,
        ["key-RS256"],
        True,
    ):
        yield f"kid {str(kid)[:20]!a}", good(header={"kid": kid})


def wrong_shapes() -> Hostile:
    token = good()
    head, body, signature = token.split(".")
    plain = json.dumps(claims())
    yield from {
        "empty": "",
        "dots": "..",
        "two parts": f"{head}.{body}",
        "no signature": f"{head}.{body}.",
        "no header": f".{body}.{signature}",
        "no claims": f"{head}..{signature}",
        "four parts": f"{token}.AAAA",
        "an encrypted token's five": f"{encoded({'alg': 'dir', 'enc': 'A256GCM'})}..AAAA.AAAA.AAAA",
        "six parts": f"{token}.A.A.A",
        "space before": f" {token}",
        "space behind": f"{token} ",
        "newline behind": f"{token}\n",
        "NUL behind": f"{token}\0",
        "tab inside": token.replace(".", ".\t", 1),
        "newline in a part": f"{head[:9]}\n{head[9:]}.{body}.{signature}",
        "padded header": f"{head}=.{body}.{signature}",
        "padded claims": f"{head}.{body}==.{signature}",
        "padded signature": f"{token}==",
        "the other base64": f"{head}.{body}.+/{signature}",
        "percent": token.replace(".", "%2E"),
        "bearer twice": f"Bearer {token}",
        "quoted": f'"{token}"',
        "two tokens": f"{token},{token}",
        "full stop": token.replace(".", "\uff0e"),
        "1 MB of a": "a" * 1_000_000,
        "1 MB of dots": "." * 1_000_000,
        "1 MB in a part": f"{'a' * 1_000_000}.{body}.{signature}",
        "valid but for its size": good(pad="a" * 20_000),
        "JSON": json.dumps({"payload": body, "signature": signature}),
        "nested token": sign({"alg": "RS256", "cty": "JWT", "kid": "key-RS256"}, token),
        "a token for claims": sign({"alg": "RS256", "kid": "key-RS256"}, token),
        "header and claims swapped": f"{body}.{head}.{signature}",
        "claims of another": f"{head}.{encoded(claims(sub='root'))}.{signature}",
        "detached": sign({"alg": "RS256", "kid": "key-RS256"}, ""),
        "another spelling of its end": token[:-1] + chr(ord(token[-1]) + 1 if token[-1] not in "Zz9_-" else ord("A")),
    }.items()
    said = {
        "a list": f"[{plain}]",
        "text": '"ada"',
        "null": "null",
        "a number": "7",
        "no JSON": "hello",
        "more behind": plain + "{}",
        "a comment": plain + "//",
        "single quotes": plain.replace('"', "'"),
        "trailing comma": plain[:-1] + ",}",
        "a byte order mark": "\ufeff" + plain,
        "NaN": plain[:-1] + ', "x": NaN}',
        "-Infinity": plain[:-1] + ', "x": -Infinity}',
        "exp NaN": json.dumps(claims(exp=float("nan"))),
        "exp infinite": json.dumps(claims(exp=float("inf"))),
        "exp 1e999": plain.replace('"exp": ', '"exp": 1e999, "x": '),
        "5,000 digits": plain.replace('"exp": ', '"exp": ' + "9" * 5000),
        "objects 3,000 deep": '{"a":' * 1500 + "1" + "}" * 1500,
        "lists 5,000 deep": "[" * 5000,
        "repeated inside": plain[:-1] + ', "x": {"a": 1, "a": 1}}',
    }
    for name in ("iss", "sub", "aud", "exp", "iat", "tenant", "roles", "groups"):
        said[f"{name} twice"] = plain[:-1] + f', "{name}": {json.dumps(claims()[name])}}}'
        said[f"{name} twice, escaped"] = (
            plain[:-1] + f', "\\u{ord(name[0]):04x}{name[1:]}": {json.dumps(claims()[name])}}}'
        )
    for name, text in said.items():
        yield f"claims: {name}", sign({"alg": "RS256", "kid": "key-RS256"}, text)
    for name, raw in {
        "no UTF-8": b'{"iss": "\xff"}',
        "UTF-16": plain.encode("utf-16"),
        "UTF-32": plain.encode("utf-32"),
        "UTF-7": plain.encode("utf-7").replace(b"{", b"+AHs-"),
        "zeros": bytes(100),
    }.items():
        yield f"claims: {name}", sign({"alg": "RS256", "kid": "key-RS256"}, raw)
    for name, text in {
        "alg twice": '{"alg": "none", "alg": "RS256"}',
        "kid twice": '{"alg":"RS256","kid":"a","kid":"key-RS256"}',
        "no JSON": "{alg: RS256}",
        "a list": '["RS256"]',
        "text": '"RS256"',
        "deep": "[" * 3000,
        "empty": "{}",
        "NaN": '{"alg": "RS256", "x": NaN}',
    }.items():
        yield f"header: {name}", sign(text, claims())


def mutated() -> Hostile:
    """Valid tokens with one character changed or left out, at places drawn once."""
    drawn = random.Random(7515)
    for algorithm in ("RS256", "ES256", "EdDSA"):
        token = good(algorithm)
        for _ in range(40):
            place = drawn.randrange(len(token) - 1)
            other = drawn.choice([letter for letter in "ABCDabcd0123-_.=" if letter != token[place]])
            yield f"{algorithm}: {place} changed", token[:place] + other + token[place + 1 :]
            yield f"{algorithm}: {place} left out", token[:place] + token[place + 1 :]


def all_hostile(attacker: str) -> list[tuple[str, str]]:
    made = (
        confused_algorithms(),
        wrong_keys(),
        curves(),
        wrong_claims(),
        wrong_names(),
        other_kinds(),
        wrong_headers(attacker),
        wrong_shapes(),
        mutated(),
    )
    return [row for kind in made for row in kind]


# ---- what becomes of them


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every address that anything in this process asks for, by name or by number; none is reached."""
    tried: list[Any] = []

    def refuse(*asked: Any, **_: Any) -> Any:
        tried.append(asked[-1])
        raise OSError("no connections here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    yield tried


def test_every_hostile_token_is_refused_quickly_and_nothing_is_fetched(world: World, no_connections: list[Any]) -> None:
    hostile = all_hostile(world.attacker)
    assert len(hostile) >= 500
    assert len({name for name, _ in hostile}) > 0.9 * len(hostile)
    wrong, took = [], []
    for name, token in hostile:
        begun = time.perf_counter()
        outcome = outcome_of(world.identity.verify, token)
        took.append(time.perf_counter() - begun)
        if outcome != "refused" or took[-1] > SLOW_S:
            wrong.append((name, outcome, round(took[-1], 3)))

    assert wrong == []
    assert sorted(took)[len(took) // 2] < 0.02
    assert world.attacked == []
    assert no_connections == []
    assert world.fetches == ["/keys"], "the issuer's own, before the first of them"


def outcome_of(verify: Callable[[str], Any], token: str) -> str:
    try:
        verify(token)
    except Unauthenticated:
        return "refused"
    except Exception as error:  # noqa: BLE001 - any is a failure, and is named
        return type(error).__name__
    return "accepted"


@pytest.mark.parametrize("algorithm", sorted(SIGNED_WITH))
def test_the_valid_twin_of_each_kind_of_key_is_accepted(world: World, algorithm: str) -> None:
    caller = world.identity.verify(good(algorithm))

    assert (caller.subject, caller.tenant) == ("ada", "acme")


@pytest.mark.parametrize("skew", [-25, 0, 25])
def test_clocks_may_differ_by_half_a_minute(world: World, skew: int) -> None:
    now = int(time.time()) + skew
    assert world.identity.verify(good(iat=now, exp=now + 600))
    assert world.identity.verify(good(iat=now - 600, exp=now - min(skew, 0) + 2))


def test_what_the_generator_forges_would_pass_where_nothing_is_checked() -> None:
    """The forgeries are real: a verifier that believes the header takes them."""
    pem = public_pem(KEYS["RS256"])
    token = dict(confused_algorithms())["HS256 with the PEM of RS256"]
    head, body, mac = token.split(".")
    expected = hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
    assert encoded(expected) == mac
    by_stranger = dict(wrong_keys())["RS256 by a stranger"]
    assert jwt.decode(by_stranger, STRANGER.public_key(), ["RS256"], audience=AUDIENCE)["sub"] == "ada"
