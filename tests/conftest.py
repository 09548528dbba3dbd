"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does: see backend.cli

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measurements and recordings beside the checkout; tests that need it are skipped without."""
    folder = Path(os.environ.get("BOXLIFT_SHARED") or ROOT.parent / "shared")
    if not (folder / "README.md").is_file():
        pytest.skip(f"needs the recordings and photos of {folder.name}/ beside the checkout (or BOXLIFT_SHARED)")
    return folder
