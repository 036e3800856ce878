"""What a case of the poison pack is: something to build in a source, and how it must end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MEMORY_MB, MAX_FILE_MB = 256, 20
"""The limits under which the pack is read: below the product's, so that what eats memory comes to its end sooner."""
OUT_OF_MEMORY = (
    rf"the parser (ran out of memory|gave up \(signal 6\), most likely for want of memory) \({MEMORY_MB} MB\)"
)
EMPTY = "empty: the file holds no text"


@dataclass(frozen=True, slots=True)
class Bait:
    """What hostile files reach for: a port that hears every caller, and a file whose content must stay where it is."""

    address: str
    canary: Path

    @property
    def file_url(self) -> str:
        return self.canary.as_uri()

    @property
    def http_url(self) -> str:
        return f"http://{self.address}/poison"

    def calls(self) -> tuple[str, ...]:
        """Every way to name the two."""
        return (self.http_url, f"https://{self.address}/", f"ftp://{self.address}/", self.file_url, str(self.canary))


@dataclass(frozen=True, slots=True)
class End:
    """How a document must end: quarantined where there is a `reason` (an expression for all of it), else indexed.

    `text` stands in what is indexed, `absent` in nothing that comes out.
    """

    reason: str | None = None
    text: str = ""
    absent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert (self.reason is None) == bool(self.text), "say one of the two ends"


@dataclass(frozen=True, slots=True)
class Poison:
    """A file of hostile content. `reaches`: it names the bait, and must get nothing of it even outside the sandbox."""

    name: str
    build: Callable[[Bait], bytes]
    end: End
    reaches: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Something hostile about where and how a file lies in its source.

    `ends`: how each document that comes of it must end, by its path (`#id` for a row); nothing else may come of it.
    `after_listing` is done when all was named, before anything is read.
    """

    name: str
    make: Callable[[Path, Bait], None]
    ends: dict[str, End]
    after_listing: Callable[[Path, Bait], None] = lambda folder, bait: None


def of(data: bytes) -> Callable[[Bait], bytes]:
    """Build a file that reaches for nothing."""
    return lambda _: data


def refused(name: str, build: Callable[[Bait], bytes], reason: str, reaches: bool = False) -> Poison:
    """A file that is quarantined."""
    return Poison(name, build, End(reason=reason), reaches)


def read(name: str, build: Callable[[Bait], bytes], text: str, *absent: str, reaches: bool = False) -> Poison:
    """A file that is indexed as what it honestly is."""
    return Poison(name, build, End(text=text, absent=absent), reaches)
