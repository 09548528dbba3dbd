"""Print README's table of settings, or put it into README.md (--write)."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from backend.settings import Settings

BEGIN, END = "<!-- settings: scripts/settings_table.py --write -->", "<!-- /settings -->"
README = Path(__file__).parents[1] / "README.md"


def default(item: dataclasses.Field[object]) -> str:
    """A field's default as people would write it."""
    if item.default_factory is not dataclasses.MISSING:
        return "`~/.cache/boxlift`"  # the one computed default: it depends on the user
    return f"`{item.default}`" if item.default not in ("", ()) else ""


def table() -> str:
    """Markdown: variable, default, meaning."""
    rows = [
        f"| `{item.metadata['env']}` | {default(item)} | {item.metadata['help'].replace('|', '/')} |"
        for item in dataclasses.fields(Settings)
    ]
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows])


def replaced(text: str) -> str:
    """README's text with the table of now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv:
        README.write_text(replaced(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())
