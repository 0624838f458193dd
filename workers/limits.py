"""What the caller lets this process have, set before anything is imported that would take more of it.

Loaded by path before anything else of opexec, in any Python >= 3.7.
"""

from __future__ import annotations

import os
import signal

_NAMES = {"memory": "RLIMIT_DATA", "open_files": "RLIMIT_NOFILE", "core": "RLIMIT_CORE"}


def clear_signals():
    """Undo what a caller's thread passes on to its children: blocked signals, and a SIGCHLD that is ignored (subprocess would lose
    exit codes)."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def apply(told):
    """Set the limits in ``"memory=2147483648,open_files=64,core=0,nice=5"``; ``(reason, cure)`` of one that cannot be set, or None.

    ``memory`` is RLIMIT_DATA, in bytes: private memory that may be written to. Not RLIMIT_AS, which would count files that are mapped, memory
    that is shared and address space that is only reserved.
    """
    for entry in told.split(","):
        name, _, value = entry.partition("=")
        number = int(value)
        if name == "nice":
            try:
                os.nice(number)
            except OSError as error:
                return (
                    "nice={}: {}".format(number, error.strerror),
                    "give 0 or more: only a privileged user may raise a priority",
                )
        else:
            against = _set(name, number)
            if against is not None:
                return against
    return None


def _set(name, number):
    try:
        import resource
    except ImportError:
        return (
            "this interpreter was built without the module resource, which sets limits",
            "give an interpreter that has it, or no limits",
        )
    which = getattr(resource, _NAMES[name])
    try:
        # The hard limit too: what the model starts cannot lift it.
        resource.setrlimit(which, (number, number))
    except (OSError, ValueError, OverflowError) as error:
        soft, hard = resource.getrlimit(which)
        return (
            "{}={} ({}) cannot be set: {}; its hard limit is {}".format(
                name, number, _NAMES[name], error, hard
            ),
            "give at most that, or have the caller's own limit raised",
        )
    return None
