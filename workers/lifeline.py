"""A worker never outlives its caller.

What ends the worker and all its children, whatever killed the caller and whoever holds the GIL, is in the caller's hands
(`opexec.processes.lifeline`). Here is the worker's part: it covers the moment before the caller has tied that knot, and a caller whose end of it
was copied into another process by a fork that Python did not see. Loaded by path before anything else of opexec.
"""

from __future__ import annotations

import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def arm(parent):
    """Have the kernel kill this process when the thread that started it ends; leave at once if process `parent` is not its parent.

    The caller starts workers from a thread that lives as long as itself.
    """
    try:
        import ctypes
    except ImportError:  # an interpreter built without libffi; the caller's part stands alone
        pass
    else:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The caller may have died before the line above.
    if os.getppid() != parent:
        sys.exit(
            "opexec: this worker was started for process {} but its parent is process {}. Either that process has died, or the "
            "interpreter's path leads to a wrapper that runs Python as a child: give the interpreter itself.".format(
                parent, os.getppid()
            )
        )
