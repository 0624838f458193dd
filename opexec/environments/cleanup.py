"""What environments take on disk, who uses them, and removing them.

An environment's files are hard links to those in uv's cache, where that is on the same disk: removing it frees only what nobody else
has a link to. So sizes are counted as `du` does it (blocks, and every file once), and what is freed is counted apart.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import BuildError
from ..files import caches
from ..workers import keeper
from . import store as environment_store
from .store import Stored

#: One that was asked for so recently stays: a program may be about to start its worker.
JUST_USED = datetime.timedelta(minutes=5)


class Disk:
    """What environments take on disk, as found when this is made. Takes some 4 us a file."""

    def __init__(self, homes: Iterable[Path]) -> None:
        # By inode, because everything below one cache is on one disk.
        self._blocks: dict[int, int] = {}
        self._links: dict[int, int] = {}
        self._inside = {home.name: Counter(self._files(home)) for home in homes}

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(self._inside)

    def size(self, *keys: str) -> int:
        """Bytes in these environments together, every file counted once."""
        return sum(map(self._blocks.__getitem__, set().union(*(self._inside[key] for key in keys)))) * 512

    def freed(self, *keys: str) -> int:
        """Bytes that removing these together gives back: of files to which nobody else has a link."""
        removed: Counter[int] = Counter()
        for key in keys:
            removed.update(self._inside[key])
        return sum(self._blocks[file] for file, links in removed.items() if links >= self._links[file]) * 512

    def _files(self, home: Path) -> Iterator[int]:
        folders = [os.fspath(home)]
        while folders:
            with (
                contextlib.suppress(OSError),
                os.scandir(folders.pop()) as entries,
            ):  # may be removed meanwhile
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    file = status.st_ino
                    self._blocks[file] = status.st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        self._links[file] = 1
                        folders.append(entry.path)
                    else:
                        self._links[file] = status.st_nlink
                    yield file


def users() -> dict[str, list[int]]:
    """The processes that run an environment's interpreter or have a library of it loaded, by the environment's key.

    Only those that this user may look at: on a shared cache, other users' processes are known by their command line alone.
    """
    homes = caches.root() / "environments"
    places = {os.fspath(homes), os.path.realpath(homes)}
    inside = re.compile(rf"^(?:.* )?(?:{'|'.join(map(re.escape, sorted(places)))})/([^/\n]+)/", re.MULTILINE)
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter():
        if _is_keeper(process):
            continue
        for key in {match[1] for text in _files_of(process) for match in inside.finditer(text)}:
            found.setdefault(key, []).append(process.pid)
    return found


def _is_keeper(process: psutil.Process) -> bool:
    """Whether it only has the same memory as a worker, which is told of."""
    with contextlib.suppress(psutil.Error):
        return process.name() == keeper.NAME
    return False


def _files_of(process: psutil.Process) -> Iterator[str]:
    """The interpreter, as it was started: where that is a venv's, the kernel knows only the file that the venv's link leads to."""
    try:
        (started, *_) = process.cmdline() or [""]
        if os.path.isabs(started):
            yield os.path.normpath(started)
        elif os.sep in started:
            yield os.path.normpath(os.path.join(process.cwd(), started))
        elif started.startswith("python"):
            yield os.path.join(process.environ().get("VIRTUAL_ENV", ""), "bin", started)
    except psutil.Error:
        pass
    # What it was started as says nothing once it has given itself a title of its own.
    with contextlib.suppress(OSError):
        yield Path(f"/proc/{process.pid}/maps").read_text(errors="replace")


def remove(environment: Stored, *, to_be_rebuilt: bool = False) -> None:
    """Remove an environment from the cache.

    Args:
        to_be_rebuilt: leave the list of its exact versions, so that it gets the same ones when it is asked for again; and leave it
            whole if it was asked for since `environment` was read.

    Raises:
        BuildError: a process runs in it or builds it, or it was asked for meanwhile.
    """
    with _held(environment):
        if running := users().get(environment.key):
            raise BuildError(
                f"expected nobody to use the environment {environment.called}; {_processes(running)} in it. "
                "Close its models, or end that program, and try again."
            )
        now = environment_store.look(environment.home)
        if now is None:
            return
        if to_be_rebuilt and (now.used, now.complete) != (environment.used, environment.complete):
            raise BuildError("it was asked for just now")
        # Whoever looks for it from here on finds that it is not there, and waits for the lock.
        for name in ("complete.json", "used"):
            (environment.home / name).unlink(missing_ok=True)
        for entry in list(environment.home.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                caches.remove(entry)
            elif not (to_be_rebuilt and entry.name in environment_store.LOCKS):
                entry.unlink()
        if not (to_be_rebuilt and environment.lock):
            environment.home.rmdir()


def remove_named(text: str) -> str:
    """Remove a name and its environment, which stays where it has another name too; or the environment of a key.

    Returns what was done, for the user.

    Raises:
        BuildError: there is no such name or key, or the environment is in use; nothing is removed then.
    """
    known = environment_store.names()
    name = next((each for each in known if each.name == text), None)
    if name is None:
        found = environment_store.find(text)
        remove(found)
        return f"removed {found.key}"
    others = [each.name for each in known if each.key == name.key and each.name != text]
    if not others:
        if found_now := environment_store.look(name.home, [name]):
            remove(found_now)
        else:
            caches.remove(name.home)  # at most the versions it had
    environment_store.forget(text)
    return (
        f"removed the name {text}; its environment is {' and '.join(others)} too"
        if others
        else f"removed {text}"
    )


@contextlib.contextmanager
def _held(environment: Stored) -> Iterator[None]:
    def refuse(holder: str) -> None:
        raise BuildError(
            f"expected nobody to use the environment {environment.called}; {holder} builds it. Wait for it, and try again."
        )

    with caches.locked(environment.home.with_suffix(".lock"), refuse):
        yield


def _processes(pids: list[int]) -> str:
    listed = ", ".join(map(str, pids))
    return f"process {listed} runs" if len(pids) == 1 else f"processes {listed} run"


@dataclass(frozen=True)
class Verdict:
    """On one environment: what it takes, and why it goes or stays."""

    environment: Stored
    size: int
    reason: str


@dataclass(frozen=True)
class Plan:
    """What pruning would do, or has done. Sizes are in bytes."""

    disk: Disk
    remove: tuple[Verdict, ...]
    spared: tuple[Verdict, ...]
    """Those that would go, were they not in use, just used or named."""

    @property
    def before(self) -> int:
        """What all environments take together."""
        return self.disk.size(*self.disk.keys)

    @property
    def after(self) -> int:
        return self.disk.size(*(self.disk.keys - self._gone))

    @property
    def freed(self) -> int:
        """What the disk gets back: less than `before - after` where uv's cache has links to the same files."""
        return self.disk.freed(*self._gone)

    @property
    def _gone(self) -> set[str]:
        return {verdict.environment.key for verdict in self.remove}


def plan(
    *,
    older_than: datetime.timedelta | None = None,
    larger_than: int | None = None,
    named: bool = False,
) -> Plan:
    """What to remove: what interrupted builds left; what was last used longer ago than `older_than`; then, as long as all together
    take more than `larger_than` bytes, the one that was used least recently. Named ones only if `named`.
    """
    everything = sorted(environment_store.stored(), key=lambda each: (each.complete, _used(each)))
    disk = Disk(each.home for each in everything)
    running = users()
    now = datetime.datetime.now(datetime.timezone.utc)
    left = set(disk.keys)
    remove, spared = [], []
    for each in everything:
        age = now - _used(each)
        if not each.complete:
            reason = "its build was interrupted" if each.base is None else "its interpreter is gone"
        elif older_than is not None and age > older_than:
            reason = "not used for so long"
        elif larger_than is not None and disk.size(*left) > larger_than:
            reason = "used least recently"
        else:
            continue
        size = disk.size(each.key)
        if spare := _spare(each, running.get(each.key, []), age, named):
            spared.append(Verdict(each, size, spare))
        else:
            remove.append(Verdict(each, size, reason))
            left.remove(each.key)
    return Plan(disk, tuple(remove), tuple(spared))


def carry_out(planned: Plan) -> Plan:
    """Remove what a plan says. Returns what became of it: an environment that somebody began to use meanwhile is spared."""
    removed, spared = [], list(planned.spared)
    for verdict in planned.remove:
        try:
            remove(verdict.environment, to_be_rebuilt=True)
        except BuildError as error:
            spared.append(dataclasses.replace(verdict, reason=str(error)))
        else:
            removed.append(verdict)
    return Plan(planned.disk, tuple(removed), tuple(spared))


def _spare(each: Stored, running: list[int], age: datetime.timedelta, named: bool) -> str | None:
    """Why one that would go has to stay."""
    if running:
        return f"{_processes(running)} in it"
    if each.names and not named:
        return "it has a name"
    if each.complete and age < JUST_USED:
        return "it was used just now"
    if _is_being_built(each):
        return "it is being built"
    return None


def _is_being_built(each: Stored) -> bool:
    try:
        with _held(each):
            return False
    except BuildError:
        return True


def _used(each: Stored) -> datetime.datetime:
    return each.used or datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
