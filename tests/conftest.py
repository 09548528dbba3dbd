"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does: see backend.cli
if "PYTEST_XDIST_WORKER" in os.environ:
    # Several testing processes keep the cores busy already: threads of each cost a fifth more work for nothing.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # What a shell starts in the background ignores Ctrl-C, and so would all that tests start and then interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
_TOGETHER = "tests/e2e/test_"
"""These tests share a Label Studio, which costs more to start than most of them take."""
_SLOWEST = ("e2e", "deployment", "queue", "engine", "learning", "heads", "evaluation", "bulk")
"""Folders of tests that take minutes, slowest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several testing processes (`make test`), one runs all of a file, and two all of a real Label Studio."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            if not file.startswith(_TOGETHER):
                return file
            return "first half" if file.removeprefix(_TOGETHER) < "l" else "second half"

    return Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that no testing process is left alone with it at the end."""
    order = {folder: place for place, folder in enumerate(_SLOWEST)}
    items.sort(key=lambda item: order.get(item.path.parent.name, len(order)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measurements and recordings beside the checkout; tests that need it are skipped without."""
    folder = Path(os.environ.get("BOXLIFT_SHARED") or ROOT.parent / "shared")
    if not (folder / "README.md").is_file():
        pytest.skip(f"needs the recordings and photos of {folder.name}/ beside the checkout (or BOXLIFT_SHARED)")
    return folder
