"""What the caller executes in the foreign interpreter: ``python -I .../workers/__main__.py --control FD --parent PID [--overlay DIR]
[--bytecode DIR] [--limits NAME=NUMBER,...] [--keeper yes]``.

Python 2 and 3 can read this file, so that one which is too old says so and does not stumble over its syntax.
"""

import sys


def main():
    if sys.version_info < (3, 7):
        sys.exit(
            "opexec: a worker needs Python 3.7 or later; {} is {}".format(
                sys.executable, sys.version.split()[0]
            )
        )
    given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    del sys.argv[1:]  # the model's own code may look there
    lifeline, limits, stack, bootstrap = load("lifeline"), load("limits"), load("stack"), load("bootstrap")
    lifeline.arm(int(given["--parent"]))
    limits.clear_signals()
    refused = limits.apply(given["--limits"]) if "--limits" in given else None

    import faulthandler
    import os
    import socket

    # The caller reads both as lines of UTF-8. Complete lines are sent at once: what waits in a buffer is lost when a worker is killed.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore
    faulthandler.enable()  # a crash in native code says where it happened
    stack.tell_when_asked()

    fd = int(given["--control"])
    os.set_inheritable(fd, False)
    bootstrap.install(os.path.dirname(FOLDER), given.get("--overlay"), given.get("--bytecode"))
    try:
        from opexec.ipc.control import Control
    except ImportError as error:
        if getattr(error, "name", None) != "opexec_msgpack":
            raise
        sys.exit(
            "opexec: {} has no msgpack >= 1.0 and no overlay was given; install msgpack there".format(
                sys.executable
            )
        )
    from opexec.workers import handshake

    control = Control(socket.socket(fileno=fd), may_lose=("attach",))
    handshake.answer(control, refused)

    from opexec.workers import loop

    loop.serve(control, keeper="--keeper" in given)


def load(name):
    """A module of this folder that the import system does not know yet, without leaving bytecode there."""
    import types

    path = FOLDER + "/" + name + ".py"
    module = types.ModuleType(name)
    module.__file__ = path
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)
    return module


FOLDER = __file__.rpartition("/")[0]

if __name__ == "__main__":
    main()
