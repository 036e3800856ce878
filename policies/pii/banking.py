"""IBAN, BIC and addresses of crypto-currencies: letters and digits with strong checksums of their own."""

from __future__ import annotations

import re

from policies.pii.checks import bech32_valid, bitcoin_valid

_LENGTHS = """
AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18
FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20
LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24
SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
IBAN_CHARS = {each[:2]: int(each[2:]) for each in _LENGTHS.split()}
"""ISO 13616: how long an IBAN of a country is."""
_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}(?:[ \t-]?\n?[ \t>]?[A-Za-z0-9]){11,30}+")
_BIC = re.compile(r"(?<![A-Za-z0-9])([A-Z]{4}([A-Z]{2})[A-Z0-9]{2}(?:[A-Z0-9]{3})?)(?![A-Za-z0-9])", re.IGNORECASE)
_BIC_WORD = re.compile(r"\b(?:bic|swift)\b", re.IGNORECASE)
_BIC_REACH = 48
_WITHOUT_IBAN = """
US CA AU NZ JP CN HK SG IN KR TW TH MY ID PH VN ZA NG KE GH MA DZ MX AR CL CO PE UY PY BO EC VE PA BM KY JE GG IM CU JM
TT BS BB AO MZ TZ UG ZM ZW SN CI CM ET NP LK BD MM KH LA BN MO AM UZ KG TJ TM AF IR SY
"""
_COUNTRIES = frozenset(IBAN_CHARS) | frozenset(_WITHOUT_IBAN.split())
_BECH32 = re.compile(r"(?:bc|tb|ltc)1[02-9ac-hj-np-z]{11,87}", re.IGNORECASE)
_BASE58 = re.compile(r"[13LMDT][1-9A-HJ-NP-Za-km-z]{25,34}")
_ETHEREUM = re.compile(r"0x[0-9A-Fa-f]{40}")


def iban_at(text: str, start: int, named: bool) -> tuple[int, float] | None:
    """Read an IBAN that begins at `start`, in groups or not: where it ends, and how sure it is."""
    length = IBAN_CHARS.get(text[start : start + 2].upper())
    found = _IBAN.match(text, start) if length else None
    if found is None or length is None:
        return None
    end = start
    chars: list[str] = []
    while end < found.end() and len(chars) < length:
        if text[end].isalnum():
            chars.append(text[end].upper())
        end += 1
    if len(chars) < length or text[end : end + 1].isalnum():
        return None
    moved = "".join(chars[4:] + chars[:4])
    if int("".join(str(int(char, 36)) for char in moved)) % 97 == 1:
        return end, 1.0
    return (end, 0.7) if named else None


def bics(text: str) -> list[tuple[int, int]]:
    """Give the spans of BICs (ISO 9362) that follow the word BIC or SWIFT."""
    spans = []
    for word in _BIC_WORD.finditer(text):
        for found in _BIC.finditer(text, word.end(), min(len(text), word.end() + _BIC_REACH)):
            code = found.group(1)
            if found.group(2).upper() in _COUNTRIES and (code.isupper() or _only_code(text, word.end(), found.start())):
                spans.append(found.span(1))
                break
    return spans


def _only_code(text: str, start: int, end: int) -> bool:
    """Say whether nothing but a mark or `code is` stands between: a word in lower case is a code only then."""
    return re.fullmatch(r"\W*(?:code|number|no|nr)?\W*(?:is)?\W*", text[start:end], re.IGNORECASE) is not None


def crypto(token: str) -> bool:
    """Say whether a token is the address of a Bitcoin, Litecoin, Dogecoin, Tron or Ethereum wallet."""
    if len(token) < 14:
        return False
    if _ETHEREUM.fullmatch(token):
        return True
    if _BECH32.fullmatch(token):
        return bech32_valid(token)
    return _BASE58.fullmatch(token) is not None and bitcoin_valid(token)
