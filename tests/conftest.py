"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does: see backend.cli

ROOT = Path(__file__).parents[1]
_TOGETHER = ROOT / "tests" / "e2e"
"""Its tests share a Label Studio, which costs more to start than most of them take."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Of several testing processes (`make test`), one runs all of a file, and one all of a real Label Studio."""
    group = _TOGETHER if _TOGETHER in item.path.parents else item.path
    item.add_marker(pytest.mark.xdist_group(group.name))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measurements and recordings beside the checkout; tests that need it are skipped without."""
    folder = Path(os.environ.get("BOXLIFT_SHARED") or ROOT.parent / "shared")
    if not (folder / "README.md").is_file():
        pytest.skip(f"needs the recordings and photos of {folder.name}/ beside the checkout (or BOXLIFT_SHARED)")
    return folder
