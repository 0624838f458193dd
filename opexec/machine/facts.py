"""What this machine has and allows, as plain facts: nothing here judges or prints. `doctor` does the first, the command the second."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import BuildError, LoadError
from ..files import caches
from ..packages import cleanup as package_cleanup
from . import control_groups, devices


@dataclass(frozen=True)
class Kernel:
    system: str
    """``sys.platform``."""
    release: str
    architecture: str
    missing: tuple[str, ...]
    """Of the calls that opexec needs, those that the kernel or a filter in front of it refuses."""


@dataclass(frozen=True)
class SharedMemory:
    """Sizes are in bytes."""

    mount_size: int | None
    """Of /dev/shm; None where there is none."""
    mount_free: int | None
    mount_writable: bool
    memfd: bool
    """Whether memory can be shared without /dev/shm, sealed against shrinking."""
    available: int
    """What the kernel reckons can be had without swapping (``MemAvailable``)."""
    total: int
    group_limit: int | None
    """What the control group allows, and what is left of it."""
    group_left: int | None


@dataclass(frozen=True)
class Cores:
    present: int
    affinity: int
    """How many this process may run on."""
    quota: float | None
    """How many cores' worth of time its control group gives it."""

    @property
    def usable(self) -> float:
        return self.affinity if self.quota is None else min(float(self.affinity), self.quota)


@dataclass(frozen=True)
class Gpus:
    found: tuple[devices.Gpu, ...]
    """All of the machine, as `load` would find them."""
    visible: int
    """How many of them CUDA_VISIBLE_DEVICES leaves to this process."""
    problem: str | None
    """Why they cannot be listed, where there is a driver."""


@dataclass(frozen=True)
class Cache:
    root: Path
    problem: str | None
    """Why it cannot be used."""
    free: int | None
    """Bytes free on its disk."""
    environments: int
    names: int
    packages: int = 0
    """Unpacked ones."""
    packages_size: int = 0
    """Bytes that they take."""


def kernel() -> Kernel:
    missing = []
    for name, attempt in (
        ("pidfd_open", lambda: os.close(os.pidfd_open(os.getpid()))),
        ("eventfd", lambda: os.close(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))),
    ):
        try:
            attempt()
        except (AttributeError, OSError):
            missing.append(name)
    return Kernel(sys.platform, platform.release(), platform.machine(), tuple(missing))


def shared_memory(mount: Path = Path("/dev/shm")) -> SharedMemory:
    size = free = None
    with contextlib.suppress(OSError):
        status = os.statvfs(mount)
        size, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    memory = psutil.virtual_memory()
    limit = control_groups.memory()
    return SharedMemory(
        mount_size=size,
        mount_free=free,
        mount_writable=size is not None and os.access(mount, os.W_OK | os.X_OK),
        memfd=_has_memfd(),
        available=memory.available,
        total=memory.total,
        group_limit=None if limit is None else limit.allowed,
        group_left=None if limit is None else limit.left,
    )


def _has_memfd() -> bool:
    try:
        os.close(os.memfd_create("opexec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    except (AttributeError, OSError):
        return False
    return True


def cores() -> Cores:
    return Cores(os.cpu_count() or 1, len(os.sched_getaffinity(0)), control_groups.cores())


def descriptors() -> int | None:
    """How many files this process may have open; None for any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def gpus(driver: Path = Path("/proc/driver/nvidia/version")) -> Gpus:
    try:
        found = devices.listed()
    except LoadError as error:
        there = driver.exists() or shutil.which("nvidia-smi") is not None
        return Gpus((), 0, str(error) if there else None)
    return Gpus(tuple(found), len(devices.seen(found, os.environ)), None)


def cache() -> Cache:
    try:
        root = caches.root()
    except BuildError as error:
        return Cache(Path("~/.cache/opexec"), str(error), None, 0, 0)
    problem = None
    nearest = next(folder for folder in (root, *root.parents) if folder.exists())
    if not nearest.is_dir():
        problem = f"{nearest} is not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        problem = f"this user may not write to {nearest}"
    free = None
    with contextlib.suppress(OSError):
        status = os.statvfs(nearest)
        free = status.f_bavail * status.f_frsize
        if status.f_flag & os.ST_NOEXEC:
            problem = f"the disk of {nearest} is mounted with noexec, so no environment in it can run"
        if status.f_flag & os.ST_RDONLY:
            problem = f"the disk of {nearest} is mounted read-only"
    environments, names = _count(root / "environments", ""), _count(root / "names", ".json")
    return Cache(root, problem, free, environments, names, *package_cleanup.total())


def _count(folder: Path, suffix: str) -> int:
    """Environments are folders, names files with that ending."""
    try:
        return sum(path.name.endswith(suffix) if suffix else path.is_dir() for path in folder.iterdir())
    except OSError:
        return 0
