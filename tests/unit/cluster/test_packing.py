"""What travels with a job: the program, and never the data or the secrets of a service."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from cluster.jobs import excludes
from policies.errors import ConfigurationError


def packed(project: Path, left_out: list[str], to: Path) -> set[str]:
    create_package(str(project), to, include_gitignore=True, excludes=left_out)
    with zipfile.ZipFile(to) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    for name in ("ingest/bulk.py", "data/kept.py", "ingest/data/kept.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    return project


@pytest.mark.parametrize("name", ["data dir", "deep/er/data", "[1]*?!#\\ x", "#data", "!data"])
def test_a_data_directory_in_the_project_stays_behind(project: Path, tmp_path: Path, name: str) -> None:
    secret = project / name / "secrets" / "ray_token"
    secret.parent.mkdir(parents=True)
    secret.write_text("secret")

    found = packed(project, excludes(project / name, project), tmp_path / "package.zip")

    assert found == {"ingest/bulk.py", "data/kept.py", "ingest/data/kept.py"}


def test_a_link_in_the_project_to_the_data_directory_stays_behind(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "secrets").mkdir(parents=True)
    (tmp_path / "elsewhere" / "secrets" / "ray_token").write_text("secret")
    (project / "link").symlink_to(tmp_path / "elsewhere")

    found = packed(project, excludes(project / "link", project), tmp_path / "package.zip")

    assert found == {"ingest/bulk.py", "data/kept.py", "ingest/data/kept.py"}


def test_a_data_directory_elsewhere_changes_nothing(project: Path, tmp_path: Path) -> None:
    assert excludes(tmp_path / "data", project) == excludes(Path("/nowhere"), project)


def test_the_project_is_no_data_directory(project: Path) -> None:
    with pytest.raises(ConfigurationError, match="--data-dir"):
        excludes(project, project)
