"""What unpacked packages take on disk, who uses them, and removing them. One that is removed is unpacked again when it is next asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BuildError
from ..files import caches
from . import cache

#: One that was asked for so recently stays: a program may be about to start its worker.
JUST_USED = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Kept:
    """An unpacked package, as found when it was looked at."""

    home: Path
    name: str
    """What its ``config.json`` calls it; "" where that is gone."""
    source: str
    """The zip it was first unpacked from; "" where that is not known."""
    size: int
    """Bytes on disk."""
    used: datetime.datetime
    in_use: bool
    """Whether a worker runs it, or a process looks it up at this moment."""

    @property
    def key(self) -> str:
        """The SHA-256 of the zip."""
        return self.home.name


@dataclass(frozen=True)
class Verdict:
    """On one of them: why it goes or stays."""

    package: Kept
    reason: str


@dataclass(frozen=True)
class Plan:
    """What pruning would do, or has done. Sizes are in bytes."""

    before: int
    """What all take together."""
    remove: tuple[Verdict, ...]
    spared: tuple[Verdict, ...]
    """Those that would go, were they not in use or just used."""
    older_than: datetime.timedelta | None = None

    @property
    def freed(self) -> int:
        return sum(verdict.package.size for verdict in self.remove)

    @property
    def after(self) -> int:
        return self.before - self.freed


def kept() -> list[Kept]:
    """The unpacked packages, the one that was used last first."""
    found = (_look(home) for home in _homes())
    return sorted((each for each in found if each is not None), key=lambda each: each.used, reverse=True)


def total() -> tuple[int, int]:
    """How many there are, and what they take together: bytes."""
    sizes = []
    for home in _homes():
        with contextlib.suppress(OSError):  # may be removed meanwhile
            sizes.append(caches.disk_usage(home))
    return len(sizes), sum(sizes)


def plan(*, older_than: datetime.timedelta | None = None, larger_than: int | None = None) -> Plan:
    """What to remove: what was last used longer ago than `older_than`; then, as long as all together take more than `larger_than` bytes,
    the one that was used least recently.
    """
    everything = kept()
    now = datetime.datetime.now(datetime.timezone.utc)
    before = left = sum(each.size for each in everything)
    remove, spared = [], []
    for each in reversed(everything):
        if older_than is not None and now - each.used > older_than:
            reason = "not used for so long"
        elif larger_than is not None and left > larger_than:
            reason = "used least recently"
        else:
            continue
        if each.in_use:
            spared.append(Verdict(each, "a model runs from it"))
        elif now - each.used < JUST_USED:
            spared.append(Verdict(each, "it was used just now"))
        else:
            remove.append(Verdict(each, reason))
            left -= each.size
    return Plan(before, tuple(remove), tuple(spared), older_than)


def carry_out(planned: Plan) -> Plan:
    """Remove what a plan says, and what killed processes left. Returns what became of it: one that somebody began to use meanwhile is spared."""
    removed, spared = [], list(planned.spared)
    for verdict in planned.remove:
        try:
            _remove(verdict.package)
        except BuildError as error:
            spared.append(dataclasses.replace(verdict, reason=str(error)))
        else:
            removed.append(verdict)
    folder = _folder()
    if folder.is_dir():
        cache.remove_leftovers(folder)
    if planned.older_than is not None:
        _forget_hashes(planned.older_than)
    return dataclasses.replace(planned, remove=tuple(removed), spared=tuple(spared))


def _folder() -> Path:
    return caches.root() / "packages"


def _homes() -> Iterator[Path]:
    try:
        entries = sorted(_folder().iterdir())
    except OSError:
        return
    for entry in entries:
        if len(entry.name) == 64 and entry.is_dir():
            yield entry


def _look(home: Path) -> Kept | None:
    config, contents = caches.read_json(home / "tree/config.json"), caches.read_json(home / "contents.json")
    try:
        with _alone(home) as free:
            return Kept(
                home=home,
                name=str(config.get("name", "")) if isinstance(config, dict) else "",
                source=str(contents.get("source", "")) if isinstance(contents, dict) else "",
                size=caches.disk_usage(home),
                used=_last_use(home),
                in_use=not free,
            )
    except OSError:  # removed meanwhile
        return None


def _last_use(home: Path) -> datetime.datetime:
    mark = home / "used"
    seconds = (mark if mark.exists() else home).stat().st_mtime
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[bool]:
    """Whether nobody uses it; then nobody begins to as long as this is held. Raises FileNotFoundError."""
    mark = home / "used"
    if not mark.exists():  # from before it was written when a package is unpacked
        mark.touch()
        os.utime(mark, (home.stat().st_mtime,) * 2)
    descriptor = os.open(mark, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _remove(package: Kept) -> None:
    """Raises BuildError where it is in use, or was asked for since `package` was looked at."""

    def refuse(holder: str) -> None:
        raise BuildError(f"{holder} unpacks it")

    with cache.exclusive(package.home, refuse):
        try:
            with _alone(package.home) as free:
                if not free:
                    raise BuildError("a model runs from it")
                if _last_use(package.home) != package.used:
                    raise BuildError("it was asked for just now")
                cache.discard(package.home)
        except FileNotFoundError:
            return  # somebody else was quicker
        except OSError as error:
            raise BuildError(f"it cannot be removed: {error}") from error


def _forget_hashes(older_than: datetime.timedelta) -> None:
    """Remove what is remembered of files' hashes; where it is missed, the files are read once more."""
    limit = datetime.datetime.now().timestamp() - older_than.total_seconds()
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(_folder() / "hashes")):
            with contextlib.suppress(OSError):
                if entry.stat().st_mtime < limit:
                    os.unlink(entry.path)
