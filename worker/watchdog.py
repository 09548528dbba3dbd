"""Ends this process when a job takes too long, even if it hangs in C code that never lets Python run again."""

from __future__ import annotations

import faulthandler
import sys
import time

_SLACK = 0.5


class Watchdog:
    """At most one deadline at a time. At the deadline every thread's place is written to standard error and the
    process ends with status 1: a thread of faulthandler's, in C, which needs no interpreter lock. Signals and
    Python threads cannot do that."""

    def __init__(self) -> None:
        self._deadline: float | None = None

    def by(self, deadline: float) -> None:
        """End the process at `deadline` (of time.monotonic) or up to half a second later, not before, unless it
        is moved or lifted: so one that moves on all the time is not set all the time."""
        if self._deadline is not None and deadline <= self._deadline <= deadline + _SLACK:
            return
        self._deadline = deadline + _SLACK
        seconds = max(_SLACK, self._deadline - time.monotonic())
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)

    def off(self) -> None:
        """Lift the deadline."""
        if self._deadline is not None:
            faulthandler.cancel_dump_traceback_later()
            self._deadline = None
