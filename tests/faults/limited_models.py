"""Models that try what they may have. Python >= 3.7."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile

import numpy as np

# Where a model is: what was there when it was imported.
AT_IMPORT = resource.getrlimit(resource.RLIMIT_DATA)[0]

MIB = 1 << 20


def allocating():
    """Makes an array of as many MiB as told, and sums up what it was given."""
    return lambda mib, x=np.zeros(1, np.uint8): {
        "y": np.ones(int(mib) * MIB, np.uint8).sum(),
        "x": x.sum(dtype=np.int64),
    }


def mapping():
    """Maps as many MiB as told, privately and not to be written, of a file, and shared, of nobody's; reads both."""

    def call(mib):
        size = int(mib) * MIB
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            weights = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        shared = mmap.mmap(-1, size)
        shared[-1] = 7
        return {"y": np.array(weights[-1] + shared[-1])}

    return call


def giving_up():
    """Does as native code often does that gets no memory."""

    def call(mib):
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        if libc.malloc(ctypes.c_size_t(int(mib) * MIB)) is None:
            os.abort()
        return mib

    return call


def looking():
    """The value of a Python expression, as text; that of what it raises, if it does."""
    names = {
        "os": os,
        "socket": socket,
        "signal": signal,
        "subprocess": subprocess,
        "sys": sys,
        "resource": resource,
        "AT_IMPORT": AT_IMPORT,
    }

    def call(expression):
        try:
            value = eval(str(expression), names)
        except Exception as error:
            value = type(error).__name__
        return {"value": np.array(str(value))}

    return call


def probing():
    """How many regular files below a folder there are, and which of them it may open for writing."""

    def call(folder):
        count, open_to = 0, []
        for place, _, names in os.walk(str(folder)):
            for path in (os.path.join(place, name) for name in names):
                if os.path.isfile(path) and not os.path.islink(path):
                    count += 1
                    try:
                        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    except OSError:
                        continue
                    open_to.append(path)
        return {"count": np.array(count), "open": np.array(open_to, object)}

    return call


def leaving_children():
    """Starts a process in a session of its own, out of reach of signals to the worker's; says on a fifo which processes there are."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)

    def call():
        return np.array([os.getpid(), child.pid])

    return call


def hoarding():
    """Has files open, until its process may open only `left` more; none where that is negative. Returns `count` float64, and the sum of x."""
    held = []

    def call(left, count, x):
        while held:
            os.close(held.pop())
        if left >= 0:
            try:
                while True:
                    held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                pass
            for _ in range(int(left)):
                os.close(held.pop())
        return {"y": np.arange(int(count), dtype=np.float64), "sum": x.sum()}

    return call


def giving():
    """Returns `count` float64, a text of as many letters as told, and how many elements x has."""
    return lambda count=np.array(0), letters=np.array(0), x=np.zeros(0): {
        "y": np.arange(int(count), dtype=np.float64),
        "text": np.array(["a" * int(letters)], object),
        "size": np.array(x.size),
    }
