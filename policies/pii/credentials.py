"""Secrets: private keys, keys and tokens of well-known services, passwords, and random strings that are called a key.

Every pattern has a part that it must contain; a text without that is not searched.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from policies.pii.findings import Finding

NAME = "credentials"
_B = r"(?<![A-Za-z0-9_-])"
_TOKENS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (part, re.compile(pattern))
    for part, pattern in (
        ("AKIA", rf"{_B}AKIA[A-Z2-7]{{16}}(?![A-Za-z0-9])"),
        ("ASIA", rf"{_B}ASIA[A-Z2-7]{{16}}(?![A-Za-z0-9])"),
        ("AIza", rf"{_B}AIza[0-9A-Za-z_-]{{35}}"),
        ("ya29.", rf"{_B}ya29\.[0-9A-Za-z_-]{{20,512}}"),
        ("Q~", r"(?<![A-Za-z0-9_.~-])[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),
        ("AccountKey=", r"(?<=AccountKey=)[A-Za-z0-9+/]{40,100}={0,2}"),
        ("SharedAccessKey=", r"(?<=SharedAccessKey=)[A-Za-z0-9+/]{40,100}={0,2}"),
        ("sig=", r"(?<=[?&]sig=)[A-Za-z0-9%+/]{32,100}={0,2}"),
        ("gh", rf"{_B}gh[pousr]_[A-Za-z0-9]{{36,255}}"),
        ("github_pat_", rf"{_B}github_pat_[A-Za-z0-9_]{{22,255}}"),
        ("glpat-", rf"{_B}glpat-[A-Za-z0-9_-]{{20,64}}"),
        ("xox", rf"{_B}xox[abeoprs]-[A-Za-z0-9-]{{10,255}}"),
        ("xapp-", rf"{_B}xapp-[A-Za-z0-9-]{{20,255}}"),
        ("hooks.slack.com/", r"hooks\.slack\.com/services/T[A-Za-z0-9_]{6,16}/B[A-Za-z0-9_]{6,16}/[A-Za-z0-9_]{16,40}"),
        ("k_live_", rf"{_B}[srp]k_live_[0-9A-Za-z]{{10,255}}"),
        ("k_test_", rf"{_B}[srp]k_test_[0-9A-Za-z]{{10,255}}"),
        ("whsec_", rf"{_B}whsec_[A-Za-z0-9+/=]{{24,100}}"),
        ("sk-", rf"{_B}sk-(?:proj-|ant-|svcacct-|or-)?(?=[A-Za-z_-]{{0,40}}[0-9])[A-Za-z0-9_-]{{20,255}}"),
        ("hf_", rf"{_B}hf_[A-Za-z0-9]{{30,64}}"),
        ("npm_", rf"{_B}npm_[A-Za-z0-9]{{36}}"),
        ("pypi-", rf"{_B}pypi-[A-Za-z0-9_-]{{50,255}}"),
        ("SG.", rf"{_B}SG\.[A-Za-z0-9_-]{{16,64}}\.[A-Za-z0-9_-]{{16,64}}"),
        ("dop_v1_", rf"{_B}dop_v1_[a-f0-9]{{64}}"),
        (":AA", r"(?<![0-9A-Za-z])[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
        ("eyJ", rf"{_B}eyJ[A-Za-z0-9_-]{{8,4096}}\.eyJ[A-Za-z0-9_-]{{8,8192}}\.[A-Za-z0-9_-]{{0,2048}}"),
    )
)
_PEM_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,16} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"(?:[ \t>]{0,8}[A-Za-z0-9+/=:,. -]{0,128}\r?\n|\\n|[A-Za-z0-9+/=]{1,64}){0,400}+")
_PEM_CHARS = 16_384
_PASSWORD_WORDS = (
    "password", "passwd", "pwd", "passphrase", "passwort", "kennwort", "mot de passe", "contraseña", "clave de acceso",
    "senha", "wachtwoord", "hasło", "haslo", "lösenord", "salasana", "heslo", "jelszó", "parole d'ordine", "пароль",
    "парола", "κωδικός πρόσβασης", "adgangskode", "palavra-passe", "密码", "パスワード", "pincode", "pin code",
)  # fmt: skip
_PASSWORD = re.compile(
    r"[\w-]{0,12}[\"'`*]{0,3}\s{0,3}"
    r"(?P<link>[:=]{1,2}>?|\bis\b:?|\bist\b:?|\blautet\b:?|\best\b:?|\bes\b:?|\bè\b:?|→|：)\s{0,3}"
    r"(?:[\"'`](?P<quoted>[^\"'`\s]{3,128})[\"'`]|(?P<bare>[^\s\"'`<>]{4,128}))",
    re.IGNORECASE,
)
_NO_PASSWORD = re.compile(
    r"\$[({A-Z_]+[)}A-Z_]*$|<[^<>]*>?$|\{\{|\{\w+\}|%\w+%|%\(|\[\w+\]|[*•x]{3}|(?:\.{0,2}/[\w.-]+){2}|\.{2}|your\w*|"
    r"(?:os|env|config|settings)\.|getpass|(?:str|string|none|null|true|false|required|optional|secret|password|"
    r"changeme_?|the|not|an|input|type|varchar|field|reset|incorrect|wrong|invalid|expired|hidden|text)(?:\W.*)?$",
    re.IGNORECASE,
)
_CONNECTION = re.compile(r"(?<=://)[^\s:/@\"'<>]{0,128}:(?P<secret>[^\s/@\"'<>]{1,128})@")
_KEY_WORDS = ("key", "secret", "token", "bearer", "credential", "authorization", "signature")
_LONG = re.compile(r"[A-Za-z0-9_+/=.~-]{16,512}+")
_KEY_BEFORE = re.compile(
    r"(?:key|secret|token|bearer|credentials?|authorization|signature)(?:[ _-]?(?:id|value))?[\"'`*]{0,3}\s{0,3}"
    r"(?:[:=]{1,2}>?|\bis\b|\s)\s{0,3}(?:(?:bearer|basic|token)\s{1,3})?[\"'`]?\Z",
    re.IGNORECASE,
)
_KEY_REACH = 48
_ASSIGNED = re.compile(
    r"[A-Za-z0-9_.-]{0,64}(?:key|secret|token|signature)=(?P<value>[A-Za-z0-9_+/=.~-]{16,512})", re.IGNORECASE
)
"""`API_KEY=...` is one run of the characters of keys."""
_PLACEHOLDER_CHARS = 12
MIN_PASSWORD = 4
MIN_BITS = 3.2
"""Entropy of a character from which a string that is called a key is one; words have less, or no digit."""


class Credentials:
    """Private keys, keys and tokens of services, and passwords."""

    entities = frozenset({"API_KEY", "PRIVATE_KEY", "PASSWORD"})

    def find(self, text: str) -> Iterator[Finding]:
        """Give the secrets; of `user:password@host` only the password."""
        if "PRIVATE KEY" in text:
            yield from _private_keys(text)
        for part, pattern in _TOKENS:
            if part in text:
                for found in pattern.finditer(text):
                    yield Finding("API_KEY", *found.span(), 1.0, NAME)
        if "://" in text and "@" in text:
            yield from _connections(text)
        lower = lowered(text)
        for word in _PASSWORD_WORDS:
            if word in lower:
                yield from _passwords(text, lower, word)
        if any(word in lower for word in _KEY_WORDS):
            yield from _keys(text)


def lowered(text: str) -> str:
    """Give the text in lower case with every character at its place; `İ`, which would become two, stays."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(char if len(char.lower()) > 1 else char.lower() for char in text)


def _connections(text: str) -> Iterator[Finding]:
    for found in _CONNECTION.finditer(text):
        if not _NO_PASSWORD.match(found.group("secret")) or len(found.group("secret")) > _PLACEHOLDER_CHARS:
            yield Finding("PASSWORD", *found.span("secret"), 0.95, NAME)


def _private_keys(text: str) -> Iterator[Finding]:
    reached = 0
    for begin in _PEM_BEGIN.finditer(text):
        if begin.start() < reached:
            continue
        end = _PEM_END.search(text, begin.end(), begin.end() + _PEM_CHARS)
        body = None if end else _PEM_BODY.match(text, begin.end(), begin.end() + _PEM_CHARS)
        reached = end.end() if end else body.end() if body else begin.end()
        yield Finding("PRIVATE_KEY", begin.start(), reached, 1.0, NAME)


def _passwords(text: str, lower: str, word: str) -> Iterator[Finding]:
    place = lower.find(word)
    while place >= 0:
        found = _PASSWORD.match(text, place + len(word))
        place = lower.find(word, place + len(word))
        if found is None:
            continue
        start, end = found.span("quoted" if found.group("quoted") else "bare")
        if found.group("bare"):
            end = start + len(found.group("bare").rstrip(".,;:!?)]}*"))
        value = text[start:end]
        if len(value) < MIN_PASSWORD or _NO_PASSWORD.match(value):
            continue
        if found.group("link")[0].isalpha() and value.isalpha() and (value.islower() or value.istitle()):
            continue
        yield Finding("PASSWORD", start, end, 0.7 if value.isalpha() else 0.85, NAME)


def _keys(text: str) -> Iterator[Finding]:
    for found in _LONG.finditer(text):
        if _KEY_BEFORE.search(text, max(0, found.start() - _KEY_REACH), found.start()) and _random(found.group()):
            yield Finding("API_KEY", *found.span(), 0.8, NAME)
        elif (
            "=" in found.group()
            and (assigned := _ASSIGNED.fullmatch(found.group()))
            and _random(assigned.group("value"))
        ):
            yield Finding("API_KEY", found.start() + assigned.start("value"), found.end(), 0.8, NAME)


def _random(value: str) -> bool:
    if not any(char.isdigit() for char in value) or not any(char.isalpha() for char in value):
        return False
    counts = Counter(value).values()
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts) >= MIN_BITS
