"""Where opexec keeps what it can make again: probed interpreters, built environments, msgpack overlays.

    <root>/interpreters/   one JSON file an interpreter: what it said of itself, and what must be unchanged for that to hold
    <root>/environments/   one folder an environment
    <root>/requests/       one JSON file a request for an environment: which of them it led to
    <root>/overlays/       one folder for each implementation, ABI and platform
    <root>/bytecode/       opexec's own rooms, compiled for the interpreters of workers
    <root>/demo/           the model that the demo runs

The root is `OPEXEC_CACHE` if set, else ``$XDG_CACHE_HOME/opexec``, else ``~/.cache/opexec`` (XDG Base
Directory Specification 0.8; platformdirs gives the same path, but importing it costs 20 ms and every `load`
with an environment passes here). Everything below the root may be deleted while no opexec process is using
it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..credentials import has_password
from ..errors import BuildError


def root() -> Path:
    """The cache folder, absolute; not made by asking for it.

    Raises:
        BuildError: it would be in the home folder, and the user has none.
    """
    chosen = os.environ.get("OPEXEC_CACHE")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    if not os.path.isabs(base):
        raise BuildError(
            "expected a home folder to keep files in, but HOME is not set and this user is not known to the system. "
            "Set OPEXEC_CACHE to a folder that can be written to."
        )
    return Path(base, "opexec")


def folder(*parts: str) -> Path:
    """A folder below the root, made if it is not there.

    Raises:
        BuildError: the folder cannot be made or written to.
    """
    path = root().joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(
            f"expected to keep files in the cache folder {path}, but it cannot be made: {error}. "
            "Set OPEXEC_CACHE to a folder that can be written to."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise BuildError(
            f"expected to keep files in the cache folder {path}, but this user may not write there. "
            "Set OPEXEC_CACHE to a folder that can be written to."
        )
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file at once: whoever reads it sees the old text, the new text or no file, never a part. What has a password in a URL
    is for this user's eyes alone.
    """
    temporary = scratch_beside(path)
    mode = 0o600 if has_password(text) else 0o666
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise BuildError(
                f"cannot write {path}: {error}. Make room there, or set OPEXEC_CACHE to another folder."
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def scratch_beside(path: Path) -> Path:
    """A path that nobody else has, to prepare what is then renamed to `path`."""
    return path.with_name(f".{path.name}.{os.urandom(8).hex()}")


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there."""
    import shutil  # 4 ms, and only those who build come here

    if os.path.lexists(folder):
        shutil.rmtree(folder)


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None where there is no such file or it does not hold JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def touch(path: Path, every: float = 60.0) -> None:
    """Set a file's time to now, unless that is less than `every` seconds ago; a cache that cannot be written to is left as it is."""
    with contextlib.suppress(OSError):
        if 0 <= time.time() - path.stat().st_mtime < every:
            return
    with contextlib.suppress(OSError):
        path.touch()


def disk_usage(folder: Path) -> int:
    """The bytes that a folder takes on disk: blocks, each file with several names in it once, links not followed."""
    total = folder.lstat().st_blocks * 512
    seen: set[tuple[int, int]] = set()
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return total


def digest(value: Any) -> str:
    """A short name for a JSON value: equal values, equal names. 80 bits of SHA-256, 20 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[str], None]) -> Iterator[int]:
    """Hold an exclusive lock among threads and processes; yields its file descriptor.

    flock and no pid file: the kernel lets go of it when its last holder dies, however it dies. It is our own
    and not the filelock package because the holder hands the descriptor on to the installer it starts: should
    the holder be killed, the lock stays taken until the orphaned installer has stopped writing too.

    `on_wait` is called once, with a word for the holder, if the lock is taken. The file is never deleted: a waiter could
    hold a lock on the deleted file while a third process locks a new one.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BuildError(
            f"expected to lock {path}, but it cannot be opened: {error}. Another user may have made it: "
            "set OPEXEC_CACHE to a folder of your own."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait(os.pread(descriptor, 80, 0).decode(errors="replace").strip() or "another process")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise BuildError(
                f"expected {path.parent} to be on a file system with file locks, but locking failed: {error}. "
                "Set OPEXEC_CACHE to a folder on a local disk."
            ) from error
        with contextlib.suppress(OSError):  # a full disk; it is only for those who wait to be told
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        # By name and not by closing alone: a process forked meanwhile has a copy of the descriptor.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
