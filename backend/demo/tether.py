"""Run a command that ends when the process that started it ends, however that ended.

    python tether.py PARENT COMMAND ARGUMENT…

Linux sends the signal (prctl PR_SET_PDEATHSIG), which survives exec; elsewhere the command just runs, and an
orderly end of the parent stops it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != int(parent):  # it ended before the call above
            sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the command is ours, from a list


if __name__ == "__main__":
    main()
