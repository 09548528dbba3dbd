"""What other programs may use: it exists, says what it does, and docs/api.md lists it and nothing else."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

import pytest

from backend.app import create_app
from backend.cli import COMMANDS
from backend.demo.photos import photos
from backend.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
AGAIN = "run `python scripts/api_table.py --write`"

sys.path.insert(0, str(ROOT / "scripts"))
from api_table import packages  # noqa: E402


def section(title: str) -> set[str]:
    """First column of the table under a title."""
    text = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)) - {"boxlift …"}


def test_commands_and_routes_are_listed() -> None:
    assert section("Commands") == set(COMMANDS), AGAIN
    routes = {rule.rule for rule in create_app(Settings()).url_map.iter_rules()}
    assert section("Routes of the backend") == routes, AGAIN


def test_no_other_package_is_listed() -> None:
    assert set(re.findall(r"^## `([\w.]+)`$", PAGE, re.MULTILINE)) == set(packages()), AGAIN


@pytest.mark.parametrize("package", packages())
def test_exported_names_are_listed_and_explained(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__doc__
    assert section(f"`{package}`") == set(module.__all__), AGAIN
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{package}.{name} has no docstring"


def test_the_example_gives_a_box(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = textwrap.dedent("\n".join(line for line in PAGE.splitlines() if line.startswith("    ") or not line))
    koala = next(photo.path for photo in photos() if photo.path.stem == "koala")
    (tmp_path / "cat.jpg").write_bytes(koala.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/api.md", "exec"), {})  # noqa: S102
    assert capsys.readouterr().out.startswith("koala")
