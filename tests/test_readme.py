"""README says what is true: every setting is in it as it is, and it names none that does not exist."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend.cli import COMMANDS
from backend.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = {item.metadata["env"]: item for item in dataclasses.fields(Settings)}
OTHERS = {"BOXLIFT_STUDIO_COMMAND", "BOXLIFT_SHARED"}
"""Variables of the demo and of the tests."""


def test_every_setting_is_in_the_readme() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| .* \| (.*) \|$", README, re.MULTILINE))
    assert {name: item.metadata["help"] for name, item in SETTINGS.items()} == rows


def test_table_is_the_one_that_the_settings_give() -> None:
    table = subprocess.run(
        [sys.executable, "scripts/settings_table.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert table.strip() in README, "run `python scripts/settings_table.py --write`"


def test_the_readme_names_no_other_setting() -> None:
    named = set(re.findall(r"\b(?:BOXLIFT|LABEL_STUDIO|REDIS)_[A-Z_]+\b", README))
    files = {f"{name}_FILE" for name, item in SETTINGS.items() if item.metadata["secret"]}
    assert named <= set(SETTINGS) | files | OTHERS


GROUPS = {"bench"}
"""Commands whose next word is a command too."""


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\bboxlift ([a-z]+)\b", README))))
def test_commands_exist(name: str) -> None:
    assert name in COMMANDS


def test_options_exist() -> None:
    """Each `boxlift COMMAND … --option` of the README is one of that command's."""
    for name, rest in re.findall(r"boxlift ([a-z]+)((?: [^\n`#]*)?)", README):
        options = set(re.findall(r"--[a-z-]+", rest))
        part = rest.split()[:1] if name in GROUPS else []
        told = subprocess.run(
            [sys.executable, "-m", "backend.cli", name, *part, "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert options <= set(re.findall(r"--[a-z-]+", told)), (name, *part)


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
