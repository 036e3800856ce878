"""Before anything starts: ports, disk and directories, each with a sentence that says what to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.preflight import free_ports, in_use, prepare_directory, require_disk, require_free
from policies.errors import ConfigurationError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_in_use_names_the_port_the_holder_and_the_remedy(taken: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_free({"HTTP": ("127.0.0.1", taken, "give another port with --port")})

    sentence = caught.value.detail
    assert f"Port {taken}, wanted for HTTP, is in use" in sentence
    assert str(os.getpid()) in sentence
    assert sentence.endswith("give another port with --port.")
    assert "\n" not in sentence


def test_a_port_of_all_interfaces_is_in_use_when_loopback_holds_it(taken: int) -> None:
    assert in_use("0.0.0.0", taken)


def test_a_free_port_passes() -> None:
    require_free({"HTTP": ("127.0.0.1", *free_ports(1), "")})


def test_free_ports_are_each_another() -> None:
    found = free_ports(500)
    assert len(set(found)) == 500


class FirstThree:
    """The first three ports that are asked about are taken."""

    def __init__(self) -> None:
        self.refused: list[int] = []

    def __contains__(self, port: object) -> bool:
        assert isinstance(port, int)
        if len(self.refused) == 3:
            return False
        self.refused.append(port)
        return True


def test_free_ports_leave_out_what_is_taken() -> None:
    taken = FirstThree()
    found = free_ports(20, taken)
    assert len(taken.refused) == 3 and not set(taken.refused) & set(found)


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        in_use("203.0.113.7", *free_ports(1))


def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"GB are free .* --data-dir"):
        require_disk(tmp_path, min_free_bytes=10**18)


def test_the_directories_are_for_this_user_only(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "data"
    prepare_directory(data_dir)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (data_dir, data_dir / "secrets", data_dir / "logs")}
    assert modes == {"data": 0o700, "secrets": 0o700, "logs": 0o700}


def test_a_data_directory_never_travels_with_a_job(tmp_path: Path) -> None:
    prepare_directory(tmp_path / "data")
    assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(ConfigurationError, match=r"cannot be written .* --data-dir"):
        prepare_directory(tmp_path / "data")
