"""The overlay: msgpack for a worker's interpreter, without touching the user's environment.

A folder to append to the worker's `sys.path`, with one package in it, ``opexec_msgpack``: the pure-Python
part of the msgpack that the caller has installed. It has a name of its own because an appended folder comes
last: under the name ``msgpack`` a user's own would be imported instead, of whatever age (0.5.6 returns keys
as bytes). Made once for each implementation, ABI and platform, offline, and byte-compiled there, so that a
worker's start neither compiles nor writes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
from pathlib import Path

from ..errors import BuildError
from ..files import caches
from .interpreters import Interpreter

PACKAGE = "opexec_msgpack"

# Both directions of what travels over a control socket, with the arguments that every call passes.
_CHECK = f"""
import sys
sys.path.append(sys.argv[1])
from {PACKAGE} import packb, unpackb
value = {{"name": "x", "shape": [1, 2], "raw": b"\\x00\\xff", "none": None, "ratio": 0.5, "big": 2**63, "less": -1}}
assert unpackb(packb(value, use_bin_type=True), raw=False) == value
"""


def ensure(interpreter: Interpreter) -> Path:
    """The overlay folder for an interpreter, made if the cache does not have it.

    Raises:
        BuildError: the caller has no msgpack in Python source, or it does not work in that interpreter.
    """
    sources = _sources()
    content = hashlib.sha256(
        b"\0".join(name.encode() + b"\0" + text for name, text in sources.items())
    ).hexdigest()
    names = (
        interpreter.implementation,
        interpreter.soabi or interpreter.cache_tag,
        interpreter.platform,
        content[:12],
    )
    folder = caches.folder("overlays") / "-".join(names)
    if folder.exists():  # it appears in one step, whole
        return folder
    scratch = caches.scratch_beside(folder)
    package = scratch / PACKAGE
    try:
        caches.remove(
            scratch
        )  # left by a process that was killed, had the same id, and had not come to an end
        package.mkdir(parents=True)
        for name, text in sources.items():
            (package / name).write_bytes(text)
        _run(interpreter, "-m", "compileall", "-q", str(package))
        _run(interpreter, "-B", "-c", _CHECK, str(scratch))
        scratch.rename(folder)
    except OSError as error:
        # Another thread or process that made the same overlay was faster: rename does not replace a folder with files in it.
        if not folder.exists():
            raise BuildError(f"cannot make the msgpack overlay {folder}: {error}") from error
    finally:
        caches.remove(scratch)
    return folder


def _sources() -> dict[str, bytes]:
    """The Python files of the caller's msgpack by name; never its C extension, which fits one interpreter only."""
    spec = importlib.util.find_spec("msgpack")
    if spec is None or spec.origin is None:
        raise BuildError(
            "expected msgpack beside opexec, but it is not installed. Install it: pip install 'msgpack>=1'"
        )
    folder = Path(spec.origin).parent
    sources = {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}
    if "fallback.py" not in sources:
        raise BuildError(
            f"expected msgpack's pure-Python part, fallback.py, in {folder}; it is not there. Reinstall msgpack."
        )
    return sources


def _run(interpreter: Interpreter, *arguments: str) -> None:
    done = subprocess.run(
        [interpreter.path, "-I", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise BuildError(
            f"expected the msgpack beside opexec to work in {interpreter}, but it does not:\n{done.stdout.strip()[-2000:]}\n"
            "Use a newer Python for the model, or an msgpack that supports this one beside opexec."
        )
