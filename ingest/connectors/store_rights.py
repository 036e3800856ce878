"""Who reads an object, by a tag that it carries: the tag's value names principals, `group:finance user:ada`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from policies.access import NOBODY, AccessRule
from policies.errors import InvalidRequest

T = TypeVar("T")
Tags = Mapping[str, str]


def tagged_rule(tags: Tags, name: str) -> AccessRule | None:
    """Map an object's tags; none where it carries no tag of this name.

    Principals stand between white space: a tag's value holds at most 256 letters, digits, spaces and `+ - = . _ : / @`.
    One that is malformed makes the whole rule permit nobody.
    """
    value = tags.get(name)
    if value is None:
        return None
    try:
        return AccessRule.of(value.split())
    except InvalidRequest:
        return NOBODY


def with_tags(
    objects: Iterable[T], fetch: Callable[[T], Tags | None], concurrency: int
) -> Iterator[tuple[T, Tags | None]]:
    """Give each object with its tags, in order, `concurrency` of them asked for at once; none where it is gone."""
    rest = iter(objects)
    with ThreadPoolExecutor(concurrency, thread_name_prefix="tags") as pool:
        while group := list(islice(rest, concurrency * 16)):
            yield from zip(group, pool.map(fetch, group), strict=True)
