"""No text makes the detector slow: the time grows with the length, shown by the ratio of two lengths."""

import random
import string
import time

import pytest

from policies.pii.detector import settle
from policies.pii.plain import plain
from policies.pii.structured import recognisers

HOSTILE = {
    "letters": "a",
    "digits": "1",
    "digits and spaces": "1 ",
    "digits and hyphens": "12-",
    "digits and dots": "1.",
    "digits and line breaks": "4111\n",
    "at signs": "@",
    "mail without an end": "a@",
    "labels": "a.b-",
    "dots": ".",
    "top-level domains": "a.com.",
    "colons": ":",
    "hexadecimal": "ab:0:",
    "scheme": "http://",
    "connection": "://a:b",
    "brackets": "((((",
    "letters and digits": "a1",
    "IBAN beginnings": "DE12 ",
    "IBAN without an end": "DE12345678901234567890 ",
    "cards": "4111 1111 1111 1112 ",
    "dates": "12/12/",
    "PEM": "-----BEGIN RSA PRIVATE KEY-----\n",
    "tokens": "eyJaaaaaaaa.",
    "passwords": "password: ",
    "keys": "api_key=",
    "plates": "license plate ",
    "photos": "photo a.",
    "files": "a/b.jpg",
    "bics": "swift DEUT ",
    "words": "phone ",
    "topics": "ssn mrn 12 ",
    "tables": "a|b|ssn\n1|2|3\n",
    "rows without an end": "ssn|b|c\n" + "123|456|" * 60,
    "unseen": "1\u200b",
    "full width": "１",
    "UDI": "(01)",
}


def seconds(text: str) -> float:
    best = float("inf")
    for _ in range(2):
        started = time.thread_time()
        seen = plain(text)
        settle([each for part in recognisers() for each in part.find(seen.text)], seen.text)
        best = min(best, time.thread_time() - started)
    return best


def assert_linear(piece: str, small: int, large: int) -> None:
    few, many = (piece * (size // len(piece)) for size in (small, large))
    allowed = 4 * large / small  # a quadratic search would need (large / small) ** 2

    assert seconds(many) <= allowed * max(seconds(few), 2e-4)


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_time_grows_with_the_length_of_a_hostile_text(piece: str) -> None:
    assert_linear(piece, 1_500, 20_000)


@pytest.mark.parametrize("kind", ["letters", "labels", "brackets", "letters and digits", "scheme", "unseen"])
def test_a_megabyte_of_a_hostile_text_takes_its_share_of_the_time(kind: str) -> None:
    assert_linear(HOSTILE[kind], 50_000, 1_000_000)


def test_random_characters_never_raise_and_offsets_stay_inside_the_text() -> None:
    chance = random.Random(5)
    alphabet = string.ascii_letters + string.digits * 3 + " .:-/@()+#=_\n\t\u200b\u00a0１é|*" * 2
    for _ in range(300):
        text = "".join(chance.choices(alphabet, k=chance.randrange(400)))
        seen = plain(text)
        spans = [
            seen.original(each.start, each.end)
            for each in settle([each for part in recognisers() for each in part.find(seen.text)], seen.text)
        ]

        assert all(0 <= start < end <= len(text) for start, end in spans)
        assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))
