"""The handshake: both sides say what they are, and go on only if they fit together.

The caller's hello lies in the control socket before the worker starts, so the worker can decide alone: it answers with its own hello,
or refuses and says why. The caller checks that hello by the same rules (`disagreement`).
"""

from __future__ import annotations

import os
import sys

from opexec.ipc import PROTOCOL, VERSION, packing
from opexec.ipc.faults import ProtocolError

# What must be equal on both sides, with what to do where it is not.
_MUST_AGREE = {
    "protocol": "let both sides run the same opexec",
    "opexec": "opexec was changed while the caller ran: start the caller again",
    "byteorder": "use an interpreter built for this machine",
    "pointer_bits": "use a 64-bit interpreter on both sides",
}
_TEXTS = ("python", "implementation", "numpy", "msgpack", "executable")


def hello(numpy_version):
    """This side's hello: a dict of plain values."""
    return {
        "type": "hello",
        "protocol": PROTOCOL,
        "opexec": VERSION,
        "python": "{}.{}.{}".format(*sys.version_info),
        "implementation": sys.implementation.name,
        "numpy": numpy_version,
        "msgpack": packing.VERSION,
        "pid": os.getpid(),
        "executable": sys.executable,
        "byteorder": sys.byteorder,
        "pointer_bits": 64 if sys.maxsize > 1 << 32 else 32,
    }


def disagreement(caller, worker):
    """``(reason, cure)`` why a caller and a worker with these hellos cannot work together, or None. Raises ProtocolError for no hellos."""
    for side, message in (("caller", caller), ("worker", worker)):
        if message["type"] != "hello":
            raise ProtocolError(
                "expected the {}'s hello, received a message of type {!r}".format(side, message["type"])
            )
    # First of all: sides of different protocols need not agree on what else a hello holds.
    for field, cure in _MUST_AGREE.items():
        if caller.get(field) != worker.get(field):
            reason = "{}: the caller has {!r}, the worker {!r}".format(
                field, caller.get(field), worker.get(field)
            )
            return reason, cure
    for side, message in (("caller", caller), ("worker", worker)):
        wrong = [field for field in _TEXTS if not isinstance(message.get(field), str)]
        wrong += [] if isinstance(message.get("pid"), int) else ["pid"]
        if wrong:
            raise ProtocolError("the {}'s hello has no valid {}".format(side, ", ".join(wrong)))
    return None


def answer(control, refused=None):
    """The worker's side: answer the caller's hello. Ends the process if this worker cannot serve, after saying why.

    `refused`: why it cannot, and the cure, where that is known before.
    """
    theirs, fds = control.receive()
    for fd in fds:
        os.close(fd)
    if refused is not None:
        _refuse(control, *refused)
    try:
        import numpy

        version = numpy.__version__
    except BaseException as error:  # a broken installation raises anything
        _refuse(
            control,
            "{} cannot import numpy: {}: {}".format(sys.executable, type(error).__name__, error),
            "install numpy in that environment",
        )
    mine = hello(version)
    against = disagreement(theirs, mine)
    if against is not None:
        _refuse(control, *against)
    control.send(mine)


def _refuse(control, reason, cure):
    control.send({"type": "refused", "stage": "handshake", "reason": reason, "cure": cure})
    sys.exit("opexec: {} ({})".format(reason, cure))
