"""Print the tables of docs/api.md, or put them into it (--write): commands, routes, and what packages export."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from backend.app import create_app
from backend.cli import COMMANDS
from backend.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
BEGIN, END = "<!-- tables: scripts/api_table.py --write -->", "<!-- /tables -->"
HELD = {"HEAD", "OPTIONS"}


def packages() -> list[str]:
    """Packages that say what others may use of them: those with `__all__`."""
    files = [file for base in ("backend", "worker") for file in sorted((ROOT / base).rglob("__init__.py"))]
    said = [file for file in files if re.search(r"^__all__ = ", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return [".".join(file.parent.relative_to(ROOT).parts) for file in said]


def summary(value: Any) -> str:
    """The first sentence of a docstring; nothing for constants and types that have none of their own."""
    if not (inspect.isclass(value) or inspect.isroutine(value) or hasattr(value, "__wrapped__")):
        return ""
    first = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=\.) ", first)[0].replace("|", "\\|")


def tables() -> str:
    """Markdown."""
    lines = ["## Commands", "", "| `boxlift …` | |", "|---|---|"]
    lines += [f"| `{name}` | {told} |" for name, told in sorted(COMMANDS.items())]
    app = create_app(Settings())
    lines += ["", "## Routes of the backend", "", "| route | methods | |", "|---|---|---|"]
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        methods = ", ".join(sorted(set(rule.methods or ()) - HELD))
        lines.append(f"| `{rule.rule}` | {methods} | {summary(app.view_functions[rule.endpoint])} |")
    for package in packages():
        module = importlib.import_module(package)
        lines += ["", f"## `{package}`", "", summary_of(module), "", "| name | |", "|---|---|"]
        lines += [f"| `{name}` | {summary(getattr(module, name))} |" for name in sorted(module.__all__)]
    return "\n".join(lines)


def summary_of(module: Any) -> str:
    """The first sentence of a package's docstring."""
    return " ".join((module.__doc__ or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    if "--write" in sys.argv:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{tables()}\n{END}{after}", encoding="utf-8")
    else:
        print(tables())
