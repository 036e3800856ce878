"""Checksums and shapes of identifiers. Those of national numbers are python-stdnum's; here are the ones it has not."""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

from stdnum import luhn

_VIN_VALUES = {
    **{str(digit): digit for digit in range(10)},
    **dict(
        zip(
            "ABCDEFGHJKLMNPRSTUVWXYZ",
            (1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 7, 9, 2, 3, 4, 5, 6, 7, 8, 9),
            strict=True,
        )
    ),
}
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_VIN_LETTERS = 2
_VIN = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_ENDS = frozenset({1, 0x2BC830A3})


def luhn_valid(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    return len(set(digits)) > 1 and luhn.is_valid(digits)


def card_network(digits: str) -> bool:
    """Say whether a number begins, and is as long, as cards of the networks in use are (ISO/IEC 7812 ranges)."""
    two, three, four, length = int(digits[:2]), int(digits[:3]), int(digits[:4]), len(digits)
    if digits[0] == "4":
        return length in (16, 19)
    if two in (34, 37):
        return length == 15
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in (36, 38, 39) or 300 <= three <= 305:
        return 14 <= length <= 19
    if 3528 <= four <= 3589 or four == 6011 or two in (62, 65, 81) or 644 <= three <= 649:
        return 16 <= length <= 19
    if four in (1800, 2131):
        return length == 15
    return (two == 50 or 56 <= two <= 69) and length in (16, 18, 19)


def vin_valid(number: str) -> bool:
    """Check digit of 49 CFR 565.15(c), which North American vehicles have."""
    if not _VIN.fullmatch(number) or sum(map(str.isalpha, number)) < _VIN_LETTERS:
        return False
    total = sum(_VIN_VALUES[char] * weight for char, weight in zip(number, _VIN_WEIGHTS, strict=True))
    return number[8] == "0123456789X"[total % 11]


def npi_valid(digits: str) -> bool:
    """Luhn over the prefix 80840 (45 CFR 162.406)."""
    return digits[0] in "12" and luhn_valid("80840" + digits)


def dea_valid(number: str) -> bool:
    """Two letters (or a letter and 9), six digits, and the check digit of the DEA."""
    digits = [int(char) for char in number[2:]]
    return (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]


def bitcoin_valid(address: str) -> bool:
    """Base58Check, as Bitcoin, Litecoin, Dogecoin and Tron write addresses."""
    number = 0
    for char in address:
        value = _BASE58.find(char)
        if value < 0:
            return False
        number = number * 58 + value
    if number >> 200:
        return False
    raw = number.to_bytes(25, "big")
    return sha256(sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def bech32_valid(address: str) -> bool:
    """Checksum of BIP 173 and BIP 350."""
    prefix, _, data = address.lower().rpartition("1")
    if not prefix or len(data) < 6 or any(char not in _BECH32 for char in data):
        return False
    values = [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix]
    check = 1
    for value in values + [_BECH32.index(char) for char in data]:
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check in _BECH32_ENDS


Check = Callable[[str], bool]
