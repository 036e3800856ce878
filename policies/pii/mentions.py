"""What a word announces: number plates, and files that show a face or hold a part of a body's measure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.pii.findings import Finding

NAME = "mentions"
_PLATE_WORDS = (
    "plate", "kennzeichen", "nummernschild", "immatriculation", "matrícula", "matricula", "targa", "kenteken",
    "tablica", "rejestracyjn", "registreringsnummer", "registreringsskylt", "rekisteri", "rendszám", "spz", "car reg",
    "vehicle reg", "πινακίδα", "tag number",
)  # fmt: skip
_PLATE_LEAD = re.compile(
    r"(?<![^\W_])(?:auto|kfz-|number|license|licence)?(?:" + "|".join(map(re.escape, _PLATE_WORDS)) + r")\w{0,12}"
    r"(?:\W{1,3}(?:number|no|nr|num|is|ist|est|es|lautet|was|reads|registration|mit|dem|of|the|car|numéro|n)\b){0,3}"
    r"[\W_]{1,4}",
    re.IGNORECASE,
)
_PLATE = re.compile(
    r"(?:[A-ZÄÖÜ]{1,3}[- ·]{1,2}[A-Z]{1,2}[- ]?[0-9]{1,4}[EH]?|[A-Z]{2}[- ]?[0-9]{3}[- ]?[A-Z]{2}|"
    r"[0-9]{4}[ -]?[A-Z]{3}|[A-Z]{2}[0-9]{2} ?[A-Z]{3}|(?:[A-Z0-9]{1,3}-){2}[A-Z0-9]{1,3}|[A-Z]{2,3}[ -][A-Z0-9]{3,5}|"
    r"[0-9][A-Z]{3}[0-9]{3}|[A-Z0-9]{2,4}[ -][A-Z0-9]{2,4}|[A-Z0-9]{4,8})(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_FILE = re.compile(r"\.(?:jpe?g|png|heic|tiff?|bmp|gif|webp|dcm|wsq|wav|fpt|mp3|iso)(?![A-Za-z0-9])", re.IGNORECASE)
_PATH = re.compile(r"[\w./\\:~-]{1,160}\Z")
_FACE = re.compile(
    r"face|facial|photo|foto|portrait|head-?_?shot|selfie|mug_?-?shot|passbild|lichtbild|picture of|image of|retrato|"
    r"id_?card|badge|patient|profile_?pic",
    re.IGNORECASE,
)
_BODY = re.compile(
    r"finger_?-?print|voice_?-?print|palm_?-?print|retina|iris_|iris scan|biometric|face_?print", re.IGNORECASE
)
_FACE_PHRASE = re.compile(
    r"\b(?:full[- ]face|comparable|facial|passport|patient|mugshot|identification)[- ]"
    r"(?:photo(?:graph)?s?|pictures?|images?)\b|\b(?:headshot|mugshot)s? (?:of|attached|enclosed)\b|"
    r"\bphotos? d'identité\b|\bpass(?:foto|bild)(?:er|s)?\b",
    re.IGNORECASE,
)
_REACH = 48
_UDI = re.compile(r"\(01\)[0-9]{14}(?:\([0-9]{2}\)[A-Za-z0-9/-]{1,20}){0,6}")
"""Unique device identification as GS1 writes it (21 CFR 830)."""


class Mentions:
    """Number plates, photographs of faces, and files of biometric data."""

    entities = frozenset({"LICENSE_PLATE", "PHOTO", "BIOMETRIC_ID", "DEVICE_ID"})

    def find(self, text: str) -> Iterator[Finding]:
        """Give plates behind a word for them, and image and sound files that are named or announced as such."""
        lower = text.lower()
        if any(word in lower for word in _PLATE_WORDS):
            yield from _plates(text)
        if "(01)" in text:
            for found in _UDI.finditer(text):
                yield Finding("DEVICE_ID", *found.span(), 0.95, NAME)
        if "." in text:
            yield from _files(text)
        if any(word in lower for word in ("photo", "foto", "pictur", "imag", "shot", "passbild")):
            for found in _FACE_PHRASE.finditer(text):
                yield Finding("PHOTO", *found.span(), 0.6, NAME)


def _plates(text: str) -> Iterator[Finding]:
    for lead in _PLATE_LEAD.finditer(text):
        plate = _PLATE.match(text, lead.end())
        if plate is not None and _like_plate(plate.group()):
            yield Finding("LICENSE_PLATE", *plate.span(), 0.85, NAME)


def _files(text: str) -> Iterator[Finding]:
    for found in _FILE.finditer(text):
        path = _PATH.search(text, max(0, found.start() - 160), found.start())
        entity = _shown(text[max(0, path.start() - _REACH) : found.start()]) if path else None
        if path and entity:
            yield Finding(entity, path.start(), found.end(), 0.7, NAME)


def _like_plate(value: str) -> bool:
    return (
        any(map(str.isdigit, value)) and sum(map(str.isalnum, value)) >= 4 and not re.fullmatch(r"(?:19|20)\d\d", value)
    )


def _shown(words: str) -> str | None:
    if _BODY.search(words):
        return "BIOMETRIC_ID"
    return "PHOTO" if _FACE.search(words) else None
