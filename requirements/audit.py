"""Known holes in what is locked: the floors of requirements/floors.txt, always, and pip-audit where it is answered.

    python requirements/audit.py [--offline]

Exit code 1 for a hole that is known. Where the advisory service cannot be reached, or knows a package not, that is said
in capitals, and is no failure: a machine without a network still has its floors.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LOCKS = ("cpu.txt", "gpu.txt", "test.txt")
AUDITED = ("cpu.txt", "gpu.txt")
"""What runs in production; what only tests use is held to the floors."""
TIMEOUT_S = 180
_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;]+)")
_UNREACHED = re.compile(
    r"connect|resolve|timed? ?out|max retries|unreachable|proxy|ServiceError|HTTPError", re.IGNORECASE
)

Pins = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Audit:
    """What pip-audit said: holes, one line each, and packages that it could not look up; `reached`: whether any."""

    holes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    reached: bool = True
    failure: str = ""


def pins(lock: Path) -> dict[str, str]:
    """Read `name==version` lines: canonical name → version."""
    found = (_PIN.match(line) for line in lock.read_text(encoding="utf-8").splitlines())
    return {canonicalize_name(pin[1]): pin[2] for pin in found if pin is not None}


def floor_faults(locks: Mapping[str, Pins], floors: Path) -> Iterator[str]:
    """Say which locks hold a package below its floor, and which floor is for a package that no lock has."""
    for line in _lines(floors):
        text, _, why = line.partition("#")
        floor = Requirement(text.strip())
        name = canonicalize_name(floor.name)
        if not why.strip() or not floor.specifier:
            yield f"{floors.name}: {text.strip()}: give a version, and the advisory behind a #"
        if not any(name in pinned for pinned in locks.values()):
            yield f"{floors.name}: {name} is in no lock: take it out, or spell it as the lock does"
        for lock, pinned in locks.items():
            if name in pinned and not floor.specifier.contains(pinned[name], prereleases=True):
                yield f"{lock}: {name} {pinned[name]} is below {floor.specifier}:{why.rstrip()}"


def accepted(file: Path) -> set[tuple[str, str]]:
    """Read the advisories that do not apply: (id, package). Raises `ValueError` for a line without a reason."""
    found = set()
    for line in _lines(file):
        words, _, why = line.partition("#")
        if len(words.split()) != 2 or not why.strip():
            raise ValueError(f"{file.name}: '{line}': give an id, a package, and the reason behind a #")
        advisory, package = words.split()
        found.add((advisory.upper(), canonicalize_name(package)))
    return found


def audit(pinned: Pins, excused: set[tuple[str, str]]) -> Audit:
    """Ask pip-audit about packages. It is told their versions, and looks at nothing that is installed."""
    with tempfile.TemporaryDirectory() as home:
        lock, report = Path(home) / "lock.txt", Path(home) / "report.json"
        lock.write_text("".join(f"{name}=={version}\n" for name, version in sorted(pinned.items())), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(lock), "--disable-pip", "--no-deps"]
        command += ["--progress-spinner", "off", "--timeout", "10", "-f", "json", "-o", str(report)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)  # noqa: S603 - no shell
        except subprocess.TimeoutExpired:
            return Audit(reached=False)
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            reason = last if _UNREACHED.search(last) is None else ""
            return Audit(reached=False, failure=reason)
        return _read(json.loads(report.read_text(encoding="utf-8"))["dependencies"], excused)


def main(arguments: Sequence[str]) -> int:
    """Check everything and say what was found."""
    locks = {name: pins(HERE / name) for name in LOCKS}
    found = list(floor_faults(locks, HERE / "floors.txt"))
    if "--offline" not in arguments:
        found += _online({name: locks[name] for name in AUDITED})
    for fault in found:
        print(f"vulnerable: {fault}", file=sys.stderr)
    if not found:
        print(f"{len(list(_lines(HERE / 'floors.txt')))} floors hold in {', '.join(LOCKS)}")
    return 1 if found else 0


def _online(locks: Mapping[str, Pins]) -> Iterator[str]:
    excused, seen, parts = accepted(HERE / "accepted.txt"), set[tuple[str, str]](), []
    for pinned in locks.values():  # what two locks hold alike is asked about once
        parts.append({name: version for name, version in pinned.items() if (name, version) not in seen})
        seen |= set(pinned.items())
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda part: audit(part, excused), parts))
    unknown = [name for result in results for name in result.unknown]
    for result in results:
        yield from result.holes
        if result.failure:
            yield f"pip-audit failed: {result.failure}"
    if len(unknown) == len(seen) or not all(result.reached for result in results):
        print("NOT AUDITED: no advisory service was reached; only requirements/floors.txt was checked", file=sys.stderr)
    elif unknown:
        some = f"{', '.join(unknown[:10])}{', …' if len(unknown) > 10 else ''}"
        print(f"NOT AUDITED: {len(unknown)} of {len(seen)} packages, which nobody knew: {some}", file=sys.stderr)
    else:
        print(f"{len(seen)} packages audited")


def _read(dependencies: Sequence[Mapping[str, object]], excused: set[tuple[str, str]]) -> Audit:
    holes, unknown = [], []
    for each in dependencies:
        name = canonicalize_name(str(each["name"]))
        if "skip_reason" in each:
            unknown.append(name)
        for hole in each.get("vulns", []):  # type: ignore[attr-defined]
            ids = [str(hole["id"]), *map(str, hole.get("aliases", []))]
            if not excused & {(advisory.upper(), name) for advisory in ids}:
                fixed = ", ".join(hole.get("fix_versions", [])) or "nowhere yet"
                holes.append(f"{name} {each['version']}: {', '.join(ids)}; put right in {fixed}")
    return Audit(tuple(holes), tuple(unknown))


def _lines(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line.strip()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
