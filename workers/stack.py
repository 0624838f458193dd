"""Where this process stands, told when the caller asks by a signal: before it kills a worker that hangs, it wants to know where that hangs.

faulthandler tells it on standard error, in C and without the GIL, so that it works while a library holds that. The signal is one
that does nothing where nobody waits for it, so whoever sends it to a process that has not come so far, or to one whose model has taken the
signal for itself, does no harm. Loaded by path before anything else of opexec.
"""

from __future__ import annotations

import faulthandler
import signal
import sys

SIGNAL = signal.SIGURG


def tell_when_asked():
    """Answer the signal from now on. What other signals mean stays as it is."""
    faulthandler.register(SIGNAL, file=sys.stderr, all_threads=True)
