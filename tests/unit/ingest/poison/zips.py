"""Zip files written byte by byte: with sizes that lie, entries that overlap, and names that no program would write."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

MEGABYTE = 1_048_576
SYMLINK, FILE = 0o120777 << 16, 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Part:
    """An entry as it stands in the file. `declared` is the unpacked size that it claims."""

    name: str
    packed: bytes
    declared: int
    crc: int
    mode: int = FILE


def part(name: str, content: bytes, declared: int | None = None, mode: int = FILE) -> Part:
    """An entry of small content."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    return Part(name, packed, len(content) if declared is None else declared, zlib.crc32(content), mode)


def bomb(name: str, head: bytes, filling: bytes, megabytes: int, tail: bytes) -> Part:
    """An entry that unpacks to `head`, `megabytes` of `filling`, `tail`, built in no time: the packed block repeats."""
    block = (filling * (MEGABYTE // len(filling) + 1))[:MEGABYTE]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    middle = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.compress(tail) + packer.flush()
    crc = zlib.crc32(head)
    for _ in range(megabytes):
        crc = zlib.crc32(block, crc)
    size = len(head) + megabytes * MEGABYTE + len(tail)
    return Part(name, begin + middle * megabytes + end, size, zlib.crc32(tail, crc))


def archive(parts: Sequence[Part], overlapping: bool = False) -> bytes:
    """A zip file. `overlapping`: every entry's directory record points at the first entry's bytes."""
    body, records = bytearray(), bytearray()
    first = parts[0]
    for each in parts:
        name = each.name.encode()
        entry = replace(first, name=each.name, mode=each.mode) if overlapping else each
        offset = 0 if overlapping else len(body)
        common = struct.pack(
            "<HHHHIII", 0x800, 8, 0, 0x21, entry.crc, len(entry.packed), min(entry.declared, 2**32 - 2)
        )
        if not overlapping or not body:
            body += struct.pack("<IH", 0x04034B50, 20) + common + struct.pack("<HH", len(name), 0) + name + entry.packed
        records += struct.pack("<IHH", 0x02014B50, (3 << 8) | 20, 20) + common
        records += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, entry.mode, offset) + name
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(parts), len(parts), len(records), len(body), 0)
    return bytes(body + records + end)


def parts_of(data: bytes) -> dict[str, bytes]:
    """The parts of a good Office file."""
    with zipfile.ZipFile(io.BytesIO(data)) as good:
        return {name: good.read(name) for name in good.namelist()}


def altered(data: bytes, changed: Mapping[str, bytes] | Sequence[Part]) -> bytes:
    """A good Office file with some of its parts replaced, or added."""
    new = list(changed) if not isinstance(changed, Mapping) else [part(name, body) for name, body in changed.items()]
    taken = {each.name for each in new}
    return archive([*(part(name, body) for name, body in parts_of(data).items() if name not in taken), *new])
