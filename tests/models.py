"""Models that the tests load: ``opexec.load("tests/models.py:echo")``. Python >= 3.7, standard library and numpy.

A test and a model that must wait for each other do so at a `Gate`, whose two sides are both here.
"""

from __future__ import annotations

import collections
import ctypes
import os
import signal
import sys
import time

import numpy as np


def echo():
    """Returns what came: the keywords as a dict, or what was given by position (a tuple if it was not one)."""

    def call(*args, **kwargs):
        if kwargs or not args:
            return dict(kwargs)
        return args[0] if len(args) == 1 else args

    return call


Pair = collections.namedtuple("Pair", "first second")

#: What `returning` returns for an array x, by number.
RESULTS = [
    lambda x: x + 1,
    lambda x: {"a": x, "b": x * 2},
    lambda x: (x, x * 2),
    lambda x: [x, x * 2, x * 3],
    lambda x: Pair(x, {"deep": (x, None)}),
    lambda x: {"outer": {"inner": [x, (x * 2, {"k": x * 3})], "nothing": None}, "n": 3},
    lambda x: {1: x, "b": x},
    lambda x: None,
    lambda x: (),
    lambda x: {},
    lambda x: [[], {"empty": ()}],
    lambda x: True,
    lambda x: 7,
    lambda x: 2**63,
    lambda x: -1.5,
    lambda x: 1 + 2j,
    lambda x: "t\u00e9xt\0",
    lambda x: b"\0raw\0",
    lambda x: {"f": np.float32(2.5), "i": np.int8(-3), "t": np.datetime64("2020-01-02"), "s": np.str_("np")},
    lambda x: x[..., ::-1],
    lambda x: x.T,
    lambda x: np.asfortranarray(x),
    lambda x: np.broadcast_to(x, (3,) + x.shape),
    lambda x: x.astype(">f8"),
    lambda x: x[:0],
    lambda x: x.sum(),
    lambda x: np.array(x.sum()),
    lambda x: np.array([["a", ""], ["\U0001f600", "b\0"]], object),
    lambda x: np.array([b"", b"\xff\0"], object),
    lambda x: np.array(["fixed", "size"]),
    lambda x: np.zeros(2, [("id", "i4"), ("box", "f4", (2, 2))]),
    lambda x: np.array(["2020-01-01", "NaT"], "M8[ns]"),
    lambda x: np.ma.array([1, 2]).data,
    lambda x: x,
]


def returning():
    return lambda x, which: RESULTS[int(which)](x)


def double():
    return lambda x: {"y": x * 2}


def addresses():
    """Where each input lies: its address, and whether that is in a mapping of a segment of opexec's."""

    def call(**inputs):
        found = {}
        for name, array in inputs.items():
            address = array.__array_interface__["data"][0]
            found[name] = np.array([address, in_a_segment(address, array.nbytes)], np.uint64)
        return found

    return call


def aligned_addresses():
    """`addresses`, on a platform that says of itself that inputs have to begin on 64 bytes. For a worker alone."""
    from opexec.workers.platforms import python

    python.Model.aligned = True
    return addresses()


def in_a_segment(address, size):
    """Whether these bytes of this process lie in the mapping of one segment of opexec's."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            if start <= address and address + size <= end:
                return "/dev/shm/opexec-" in line or "/memfd:opexec" in line
    return False


def growing():
    """Returns as many float64 as told."""
    return lambda count: np.arange(int(count), dtype=np.float64)


def total():
    """The sum of x: reads all of it, and gives nearly nothing."""
    return lambda x: {"sum": np.asarray(x.sum(), np.float64)}


# ---- waiting for each other


class Gate:
    """Two fifos in a folder: the model says that it is there, and waits until the test lets it on.

    Both ends are opened for reading and writing, so that neither opening nor a process that is gone blocks anybody.
    """

    def __init__(self, folder):
        paths = [os.path.join(str(folder), name) for name in ("arrived", "go")]
        for path in paths:
            if not os.path.exists(path):
                os.mkfifo(path)
        self._arrived, self._go = (os.open(path, os.O_RDWR | os.O_CLOEXEC) for path in paths)

    # The model's side

    def pass_through(self):
        os.write(self._arrived, b".")
        os.read(self._go, 1)

    # The test's side

    def wait(self, count=1):
        """Until that many have arrived."""
        for _ in range(count):
            os.read(self._arrived, 1)

    def let(self, count=1):
        """Let that many on."""
        os.write(self._go, b"." * count)

    def close(self):
        os.close(self._arrived)
        os.close(self._go)


def _gate():
    return Gate(os.environ["OPEXEC_TEST_GATE"])


def gated():
    """Returns x times ten; where x is negative, only after a stop at the gate."""
    gate = _gate()

    def call(x):
        if x.size and x.flat[0] < 0:
            gate.pass_through()
        return {"y": x * 10}

    return call


def batched():
    """Returns x times ten, and with each row how many came at once.

    Where the first row is negative, after a stop at the gate; where one is NaN it raises, and where one is infinite it ends its process.
    """
    gate = _gate()

    def call(x):
        if x.size and x.flat[0] < 0:
            gate.pass_through()
        if np.isnan(x).any():
            raise OutOfOrder("no number")
        if np.isinf(x).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return {"y": x * 10, "n": np.full(len(x), len(x))}

    return call


def first_row():
    """Returns one row, whatever comes; where it is negative, only after a stop at the gate."""
    gate = _gate()

    def call(x):
        if x[0] < 0:
            gate.pass_through()
        return {"y": x[:1]}

    return call


def gated_while_loading():
    _gate().pass_through()
    return echo()


# ---- going wrong


class OutOfOrder(Exception):
    pass


def last_words():
    sys.stdout.write("not an error\n")
    sys.stderr.write("first line\nlast words")
    sys.stderr.flush()


DEATHS = {
    "exit": lambda: os._exit(3),
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "SIGABRT": os.abort,
}


def mortal():
    """Dies as told (`DEATHS`) after last words on standard error; at the gate first if told so."""

    def call(how, stop=np.array(False)):
        if stop:
            _gate().pass_through()
        if str(how) in DEATHS:
            last_words()
            DEATHS[str(how)]()
        return how

    return call


def _dying(how):
    def factory():
        last_words()
        DEATHS[how]()

    return factory


exit_while_loading = _dying("exit")
SIGKILL_while_loading = _dying("SIGKILL")
SIGSEGV_while_loading = _dying("SIGSEGV")


def raising_factory():
    raise OutOfOrder("the weights are gone")


def exiting_factory():
    sys.exit("no more of this")


def no_callable():
    return 5


def takes_arguments(x):
    return x


def failing():
    """Fails as told; else returns x."""
    return lambda how, x=np.zeros(1): FAILURES.get(str(how), lambda: x)()


def _raise(error):
    raise error


class _Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("cannot even say it")


FAILURES = {
    "raise": lambda: _raise(OutOfOrder("a t\u00e9xt")),
    "exit": lambda: sys.exit("bye"),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "recurse": lambda: FAILURES["recurse"](),
    "memory": lambda: np.empty(1 << 60, np.uint8),
    "unprintable": lambda: _raise(_Unprintable()),
    "surrogate": lambda: _raise(ValueError("lone \udc80")),
    "huge": lambda: _raise(ValueError("x" * (20 << 20))),
    "object": object,
    "nested object": lambda: {"a": [np.zeros(1), object()]},
    "objects": lambda: np.array([1, "a", None], object),
    "set": lambda: {1, 2},
    "masked": lambda: np.ma.array([1, 2], mask=[True, False]),
    "big int": lambda: 1 << 64,
    "same names": lambda: {"a/b": np.zeros(1), "a": {"b": np.zeros(1)}},
    "too deep": lambda: _nest(40),
}


def _nest(depth):
    return [_nest(depth - 1)] if depth else np.zeros(1)


def misfit():
    """Returns outputs that fit ``y: float32[N, 2]`` and ``n: int64[]`` where N is the size of x, but for what is told."""

    def call(x, how):
        how = str(how)
        result = {"y": np.zeros((x.shape[0], 2), np.float32), "n": np.array(x.shape[0], np.int64)}
        if how == "missing":
            del result["n"]
        elif how == "extra":
            result["more"] = np.zeros(1)
        elif how == "dtype":
            result["y"] = result["y"].astype(np.float64)
        elif how == "rank":
            result["y"] = result["y"][0]
        elif how == "size":
            result["y"] = np.zeros((x.shape[0], 3), np.float32)
        elif how == "symbol":
            result["y"] = np.zeros((x.shape[0] + 1, 2), np.float32)
        elif how == "unnamed":
            return result["y"]
        return result

    return call


def flooding():
    """Prints as many lines of 1000 characters as told to both streams, also past Python's own, then returns x."""

    def call(lines, x):
        for number in range(int(lines)):
            line = "{:6}".format(number) + "x" * 994
            print(line)
            print(line, file=sys.stderr)
            os.write(1, b"raw \xff\0\n")
            os.write(2, b"raw \xfe without end")
        return x

    return call


def reshaping():
    """Changes the shape of its input in place, which a view that is used again must survive."""

    def call(x):
        y = x.copy()
        x.shape = (x.size,)
        return y

    return call


def closing_descriptors():
    """A model that closes every descriptor it can find, standard streams included."""

    def call(x):
        os.closerange(0, 100)
        return x

    return call


def forking():
    """A model that forks: the child ends by a path of its own, the parent answers."""

    def call(x):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        return x

    return call


def sleeper():
    """Takes as long as it is told, in seconds."""

    def call(seconds):
        time.sleep(float(seconds))
        return seconds

    return call


def truncating():
    """Tries to make smaller each of opexec's segments; returns how many refused, and how many did not."""

    def call(x):
        refused = cut = 0
        for fd in range(3, 256):
            try:
                path = os.readlink("/proc/self/fd/{}".format(fd))
            except OSError:
                continue
            if "opexec" in path and (path.startswith("/dev/shm") or "memfd" in path):
                try:
                    os.ftruncate(fd, 0)
                    cut += 1
                except OSError:
                    refused += 1
        return {"x": x, "refused": np.array(refused), "cut": np.array(cut)}

    return call
