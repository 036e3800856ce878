"""What the README says is there, is there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from index.settings import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_links_to_exists(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_every_make_target_that_a_page_names_exists():
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`", "".join((ROOT / page).read_text() for page in PAGES)))
    assert named <= targets


def test_every_rayrag_command_that_the_readme_names_exists():
    text = (ROOT / "README.md").read_text()
    commands = set(re.findall(r"^\s+(?:export \S+\$\()?rayrag ([a-z]+)", text, re.MULTILINE))
    shown = subprocess.run([sys.executable, "-m", "cluster", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert shown.returncode == 0 and commands
    assert not [command for command in commands if command not in shown.stdout]


@pytest.mark.parametrize("config", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_both_configurations_validate(config, tmp_path):
    load(ROOT / config, str(tmp_path))
