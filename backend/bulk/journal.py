"""What is done already, in a file that grows line by line: an interrupted run goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from worker.contract import Result
from worker.errors import ContractError


class Journal:
    """Results by the work that they answer (`Request.job_id`), one line each. Use as a context manager.

    A line that was cut off by the end of its writer is left out, and the rest is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def read(self) -> dict[str, Result]:
        """Everything that is in it. Lines of another version's form are nobody's."""
        found: dict[str, Result] = {}
        if not self.path.exists():
            return found
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry: Any = json.loads(line)
                    found[str(entry["work"])] = Result.from_dict(entry["result"])
                except (ValueError, KeyError, TypeError, ContractError):
                    continue
        return found

    def add(self, work: str, result: Result) -> None:
        """Append one result; it is with the operating system when this returns."""
        assert self._file is not None, "not entered"  # noqa: S101
        self._file.write(json.dumps({"work": work, "result": result.to_dict()}, separators=(",", ":")) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_off = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
        self._file = self.path.open("a", encoding="utf-8")
        if cut_off:
            self._file.write("\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """It is needed no more."""
        self.path.unlink(missing_ok=True)
