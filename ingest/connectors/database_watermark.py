"""How far a listing of rows has come: what a row says of its last change, and from where the next listing reads.

The watermark is the lesser of two times: the highest value that the listing saw, and what the database's own clock said
before the first page was read. Neither is safe alone. Values come from the writers' clocks: one that runs ahead would
lift the watermark over what the others write until they catch up. The database's clock may itself run ahead of a
writer's. What lies above the lesser of both is merely listed again, and a row whose fingerprint is the same costs
nothing further.

The next listing starts `overlap` below the watermark: a transaction that began earlier and committed later than a row
already seen carries a time below it. Rows of the very time of the watermark lie within the overlap, too.

Counters (integers that are no times) have no clock: the highest value seen counts alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Literal, get_args

from sqlalchemy import BigInteger, ColumnElement, Date, DateTime, Text, and_, bindparam, cast, or_

Unit = Literal["s", "ms", "us", "ns"]
Kind = Literal["instant", "local", "day", "text", "number", "count"]
"""A time with its zone, a time without, a date, ISO 8601 text, a time as a number of units, a counter."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EARLIEST_US = (datetime(1, 1, 3, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LATEST_US = (datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MAX_COUNT = 2**63 - 1
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|[+-]\d\d(?::?\d\d)?))?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Watermark:
    """A value of the column, or the highest of them.

    `at`: microseconds since 1970 UTC, or the value of a counter. `offset_us`: how far the clock by which a text was
    written is ahead of UTC (of several texts, the least), for texts are compared as they are written.
    """

    kind: Kind
    at: int
    offset_us: int = 0

    @property
    def unix_s(self) -> float | None:
        """The time as Unix seconds; none for a counter."""
        return None if self.kind == "count" else self.at / 1_000_000

    @classmethod
    def from_json(cls, value: Any) -> Watermark | None:
        """Read what `dataclasses.asdict` wrote into a cursor; none for anything else."""
        if not isinstance(value, dict) or value.keys() != {"kind", "at", "offset_us"}:
            return None
        numbers = value["at"], value["offset_us"]
        if value["kind"] not in get_args(Kind) or any(type(number) is not int for number in numbers):
            return None
        return None if any(abs(number) > _MAX_COUNT for number in numbers) else cls(**value)


class Highest:
    """The highest value of a listing. Values of several kinds have no order: there is no watermark for them."""

    def __init__(self, start: Watermark | None) -> None:
        self._highest = start
        self._is_mixed = False

    def add(self, value: Watermark | None) -> None:
        """Count one row's value; none where it has none that is understood."""
        if value is None:
            return
        highest = self._highest or value
        self._is_mixed = self._is_mixed or highest.kind != value.kind
        at, offset_us = max(highest.at, value.at), min(highest.offset_us, value.offset_us)
        self._highest = replace(highest, at=at, offset_us=offset_us)

    def watermark(self, clock_us: int) -> Watermark | None:
        """Where the next listing may go on, given the database's clock before this one; none: list all again."""
        if self._highest is None or self._is_mixed:
            return None
        return (
            self._highest
            if self._highest.kind == "count"
            else replace(self._highest, at=min(self._highest.at, clock_us))
        )


@dataclass(frozen=True, slots=True)
class WatermarkColumn:
    """How the values of a source's `updated_column` are meant. `zone`: of times that name none."""

    zone: tzinfo
    unit: Unit | None
    overlap_s: float
    overlap_count: int

    def read(self, value: Any) -> Watermark | None:
        """Understand one value; none for NULL, and for what is neither time nor number (`infinity`, free text)."""
        if isinstance(value, datetime):
            return Watermark("local" if value.tzinfo is None else "instant", self._instant_us(value))
        if isinstance(value, date):
            return Watermark("day", self._instant_us(datetime(value.year, value.month, value.day)))
        if isinstance(value, str):
            return self._read_text(value)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return self._read_number(value)
        return None

    def since(
        self, column: ColumnElement[Any], mark: Watermark, clock_us: int, collation: str | None
    ) -> ColumnElement[bool]:
        """The condition for rows that may have changed since `mark`; a row without a value is always among them.

        `collation` orders text by its characters' codes, as ISO 8601 needs it; none where all text is ordered so.
        """
        return or_(column.is_(None), self._is_since(column, mark, clock_us, collation))

    def _is_since(
        self, column: ColumnElement[Any], mark: Watermark, clock_us: int, collation: str | None
    ) -> ColumnElement[bool]:
        if mark.kind == "count":
            return column >= bindparam("since", max(mark.at - self.overlap_count, -_MAX_COUNT), BigInteger())
        from_us = max(min(mark.at, clock_us) - int(self.overlap_s * 1_000_000), _EARLIEST_US)
        if mark.kind == "number":
            return column >= bindparam("since", from_us * 1_000 // _NANOSECONDS[self.unit or "s"], BigInteger())
        if mark.kind == "instant":
            return column >= bindparam("since", _EPOCH + timedelta(microseconds=from_us), DateTime(timezone=True))
        written = self._as_written(from_us, clock_us, mark)
        if mark.kind == "local":
            return column >= bindparam("since", written, DateTime())
        if mark.kind == "day":
            return column >= bindparam("since", written.date(), Date())
        return _is_text_since(cast(column, Text).collate(collation) if collation else column, written)

    def _as_written(self, from_us: int, clock_us: int, mark: Watermark) -> datetime:
        """The earliest clock time under which a writer can have noted what happened at `from_us` or later.

        Where clocks were set back since (the end of summer time), the later offset is the lesser: rows of after that
        moment bear earlier times than some of before.
        """
        offset_us = min(self._offset_us(from_us), self._offset_us(clock_us))
        if mark.kind == "text":
            offset_us = min(offset_us, mark.offset_us)
        return datetime(1970, 1, 1) + timedelta(microseconds=max(from_us + offset_us, _EARLIEST_US))

    def _offset_us(self, at_us: int) -> int:
        at = _EPOCH + timedelta(microseconds=min(max(at_us, _EARLIEST_US), _LATEST_US))
        return (at.astimezone(self.zone).utcoffset() or timedelta()) // _MICROSECOND

    def _instant_us(self, value: datetime) -> int:
        aware = value if value.tzinfo is not None else value.replace(tzinfo=self.zone)
        return (aware - _EPOCH) // _MICROSECOND

    def _read_text(self, text: str) -> Watermark | None:
        if not _ISO.fullmatch(text):
            return None
        day, rest = text[:10], text[11:]
        try:
            value = datetime.fromisoformat(f"{day}T{rest.replace(' ', '').replace(',', '.')}" if rest else day)
        except ValueError:
            return None  # the 30th of February
        at, offset = self._instant_us(value), value.utcoffset()
        return Watermark("text", at, self._offset_us(at) if offset is None else offset // _MICROSECOND)

    def _read_number(self, number: int | float | Decimal) -> Watermark | None:
        try:
            exact = Decimal(number)
            if self.unit is None:
                return Watermark("count", _bounded(exact)) if exact == exact.to_integral_value() else None
            return Watermark("number", _bounded(exact * _NANOSECONDS[self.unit] / 1_000))
        except ArithmeticError:
            return None


def unix_us(value: datetime) -> int:
    """Microseconds since 1970; a time without zone is one of UTC."""
    return ((value if value.tzinfo is not None else value.replace(tzinfo=UTC)) - _EPOCH) // _MICROSECOND


def _bounded(number: Decimal) -> int:
    """Whole, and within what a 64-bit column holds. Raises `ArithmeticError` for NaN."""
    return int(min(max(number, Decimal(-_MAX_COUNT)), Decimal(_MAX_COUNT)))


def _is_text_since(column: ColumnElement[Any], written: datetime) -> ColumnElement[bool]:
    """Text from this time on, whether `T` or a space (which sorts before it) stands between day and time, or no time.

    Without fractions and zone the time is the beginning of each text that says it in more detail.
    """
    day, time = written.isoformat(timespec="seconds").split("T")
    return or_(
        column >= bindparam("since", f"{day}T{time}", Text()),
        and_(column >= bindparam("since_spaced", f"{day} {time}", Text()), column < bindparam("that_day", f"{day}T")),
        column == bindparam("day", day, Text()),
    )
