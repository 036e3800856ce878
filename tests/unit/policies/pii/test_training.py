"""What the tagger learns from: each word has the tag of the piece it begins in, and every slot has a value."""

from __future__ import annotations

import re

from policies.pii.tagger import TAGS
from policies.pii.training.samples import TEMPLATES, tagged

SLOTS = set(
    """
    person first last job nrp prefix prefix_de prefix_it org hospital university city country region street unit
    postcode pobox address address_line date weekday year age time phone email iban card number thing
    nothing nothing_low
    """.split()  # noqa: SIM905
)


def test_words_have_the_tag_of_their_piece_and_breaks_have_none() -> None:
    sample = tagged([("Dear ", "O"), ("Anna Lind", "PERSON"), (",\n", "O"), ("4 Elm Road\nBath", "ADDRESS")])
    said = [(text, TAGS[tag]) for text, tag in zip(sample.words.texts, sample.tags, strict=True)]
    assert said == [
        ("Dear", "O"),
        ("Anna", "PERSON"),
        ("Lind", "PERSON"),
        (",", "O"),
        ("\n", "O"),
        ("4", "ADDRESS"),
        ("Elm", "ADDRESS"),
        ("Road", "ADDRESS"),
        ("\n", "O"),
        ("Bath", "ADDRESS"),
    ]


def test_templates_name_only_slots_that_have_values() -> None:
    for name in ("en.txt", "european.txt"):
        used = set(re.findall(r"\{(\w+)\}", (TEMPLATES / name).read_text(encoding="utf-8")))
        assert used <= SLOTS, used - SLOTS
