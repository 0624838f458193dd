"""Where the sockets of shared models lie: ``<runtime folder>/opexec/<name>.sock``.

The runtime folder is `OPEXEC_RUNTIME` if set, else ``$XDG_RUNTIME_DIR/opexec``, else ``/run/user/<uid>/opexec``, else ``opexec-<uid>`` in the
folder for temporary files (XDG Base Directory Specification 0.8). The folder is the user's own, with mode 0700, and every socket has mode 0600.
A socket's address holds 107 bytes and no folder is too deep for it, because the folder is named by its descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import OpexecError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+@-]{0,79}")
_SUFFIX = ".sock"
_BACKLOG = 64


def check_name(name: object) -> str:
    """The name, if it may be a shared model's. Raises ValueError, or TypeError for what is no text."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a shared model is of type {type(name).__name__}; expected a text")
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a model is to be shared as {name!r}; expected up to 80 letters, digits and '_.:+@-', the first a letter, a digit or '_'"
        )
    return name


def folder() -> Path:
    """The folder, made if it is not there. Raises OpexecError if it is not this user's alone."""
    path = _chosen()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise OpexecError(
            f"expected to keep the sockets of shared models in {path}, but it cannot be made: {error}. "
            "Set OPEXEC_RUNTIME to a folder that can be written to."
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OpexecError(
            f"expected {path} to be a folder of user {os.geteuid()} with mode 0700; it is {stat.filemode(found.st_mode)} of user "
            f"{found.st_uid}. Remove it, or set OPEXEC_RUNTIME to another folder."
        )
    return path


def names() -> list[str]:
    """The names for which there is a socket, alive or left behind."""
    path = _chosen()
    if not path.is_dir():
        return []
    return sorted(one.name[: -len(_SUFFIX)] for one in path.iterdir() if one.name.endswith(_SUFFIX))


def path_of(name: str) -> Path:
    return _chosen() / f"{name}{_SUFFIX}"


def listen(name: str) -> socket.socket:
    """A socket that listens under a name, with mode 0600. One that a dead process left is replaced.

    Raises OpexecError if a process that is alive shares a model under that name.
    """
    file = f"{name}{_SUFFIX}"
    with _opened(folder()) as at, _locked(at):
        # Somebody who listens and is too busy is alive, too.
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            try:
                with _connected(at, file) as other:
                    pid = peer(other)[0]
            except BlockingIOError:
                pid = 0
            raise OpexecError(
                f"a model is shared as {name!r} already, by {f'process {pid}' if pid else 'another process'}; share this one by another "
                "name, or end that one"
            )
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            # Under its own name only once it listens: whoever finds the name is let in.
            beside = f".{name}.{os.getpid()}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=at)
            listening.bind(_address(at, beside))
            os.chmod(beside, 0o600, dir_fd=at)
            listening.listen(_BACKLOG)
            os.rename(beside, file, src_dir_fd=at, dst_dir_fd=at)
        except BaseException:
            listening.close()
            raise
    return listening


def connect(name: str, timeout: float | None = None) -> socket.socket:
    """A connection to whoever listens under a name. Raises FileNotFoundError, ConnectionRefusedError, TimeoutError or another OSError."""
    with _opened(_chosen()) as at:
        return _connected(at, f"{name}{_SUFFIX}", timeout)


def remove(name: str, inode: int) -> None:
    """Remove a socket's file, if it is still that one."""
    with contextlib.suppress(OSError), _opened(_chosen()) as at, _locked(at):
        file = f"{name}{_SUFFIX}"
        if os.stat(file, dir_fd=at, follow_symlinks=False).st_ino == inode:
            os.unlink(file, dir_fd=at)


def inode(name: str) -> int:
    return path_of(name).lstat().st_ino


def peer(sock: socket.socket) -> tuple[int, int]:
    """``(pid, uid)`` of the process on the other side, as the kernel noted them when it connected, or began to listen."""
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


def _chosen() -> Path:
    chosen = os.environ.get("OPEXEC_RUNTIME")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(base):
        return Path(base, "opexec")
    run = f"/run/user/{os.geteuid()}"
    if os.access(run, os.W_OK | os.X_OK):
        return Path(run, "opexec")
    return Path(tempfile.gettempdir(), f"opexec-{os.geteuid()}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    at = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield at
    finally:
        os.close(at)


@contextlib.contextmanager
def _locked(at: int) -> Iterator[None]:
    """Only one process at a time replaces or removes sockets."""
    lock = os.open(".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=at)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _connected(at: int, file: str, timeout: float | None = 0.0) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(_address(at, file))
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno == errno.ENOTSOCK:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "is no socket") from None
        raise
    return sock


def _address(at: int, file: str) -> str:
    return f"/proc/self/fd/{at}/{file}"
