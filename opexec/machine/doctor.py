"""What this machine can do for opexec, what limits it, and what to change.

Each examination looks at one thing and gives findings: a fact, and where that fact limits or prevents something, the change that would
help. How they are shown is the command's affair.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..environments import interpreter_search
from ..environments.interpreters import OLDEST, TOO_OLD_TO_SAY, Interpreter
from ..errors import BuildError
from ..files import caches
from ..ipc import VERSION
from ..sizes import text as size
from . import facts as machine

GOOD, LIMIT, BROKEN = "good", "limit", "broken"

_GIB = 1 << 30
#: Below this a model with large tensors goes to memfds at once. It is also twice what Docker gives a container.
_SMALL_SHM = 128 << 20
_LITTLE_MEMORY = _GIB // 2
_LITTLE_DISK = 5 * _GIB  # the largest framework takes about 2 GiB, and as much again while it is unpacked
_FEW_DESCRIPTORS = 256


@dataclass(frozen=True)
class Finding:
    """`level` is GOOD, LIMIT (opexec works, but something is slower, smaller or absent) or BROKEN (something keeps it from working)."""

    topic: str
    level: str
    fact: str
    cure: str | None = None
    """What to change; always there where the level is not GOOD."""


@dataclass(frozen=True)
class Report:
    findings: tuple[Finding, ...]
    facts: dict[str, Any]
    """The same for programs: by topic, values that JSON has; sizes in bytes."""

    @property
    def works(self) -> bool:
        return all(finding.level != BROKEN for finding in self.findings)


def examine(report: Callable[[str], None] = lambda step: None) -> Report:
    """Look at everything. Takes about a second the first time, when all interpreters are asked what they are, and a second or two more
    where there are shims (pyenv's, asdf's), which are asked every time.

    `report` is told what is looked at.
    """
    findings: list[Finding] = []
    facts: dict[str, Any] = {}
    for topic, look, judge in _EXAMINATIONS:
        report(topic)
        seen = look()
        findings += [dataclasses.replace(finding, topic=topic) for finding in judge(seen)]
        facts[topic] = _plain(seen)
    return Report(tuple(findings), facts)


def _good(fact: str) -> Finding:
    return Finding("", GOOD, fact)


def _limit(fact: str, cure: str) -> Finding:
    return Finding("", LIMIT, fact, cure)


def _broken(fact: str, cure: str) -> Finding:
    return Finding("", BROKEN, fact, cure)


@dataclass(frozen=True)
class _Own:
    version: str
    folder: Path
    python: str
    interpreter: str


def _own() -> _Own:
    return _Own(VERSION, Path(__file__).parent, ".".join(map(str, sys.version_info[:3])), sys.executable)


def _judge_own(seen: _Own) -> Iterator[Finding]:
    yield _good(f"{seen.version} in Python {seen.python} ({seen.interpreter})")


def _judge_kernel(seen: machine.Kernel) -> Iterator[Finding]:
    fact = f"{seen.system} {seen.release} on {seen.architecture}"
    if seen.system != "linux" or seen.architecture not in ("x86_64", "aarch64"):
        yield _broken(fact, "opexec runs on Linux, on x86-64 and aarch64; use such a machine.")
    elif seen.missing:
        yield _broken(
            f"{fact}, without {' and '.join(seen.missing)}",
            "opexec needs Linux 5.4 or later, and a container's seccomp profile that lets these calls pass (Docker 20.10 or later).",
        )
    else:
        yield _good(fact)


def _judge_cores(seen: machine.Cores) -> Iterator[Finding]:
    fact = f"{seen.present} present, {seen.affinity} usable"
    if seen.quota is not None:
        fact += f", and of these {seen.quota:.3g} by the control group's quota"
    if math.floor(seen.usable) >= 2:
        yield _good(fact)
    elif seen.affinity < 2 <= seen.present:
        yield _limit(
            f"{fact}: caller and worker take turns on one core",
            "Let the program run on more: without taskset, or with docker's --cpuset-cpus=0,1.",
        )
    elif seen.quota is not None and seen.affinity >= 2:
        yield _limit(
            f"{fact}: caller and worker share less than two cores' time",
            "Raise the quota to 2 or more: docker's --cpus, or limits.cpu in Kubernetes.",
        )
    else:
        yield _limit(
            f"{fact}: caller and worker take turns on one core", "Use a machine with two cores or more."
        )


def _judge_shared_memory(seen: machine.SharedMemory) -> Iterator[Finding]:
    usable = seen.mount_writable and seen.mount_free is not None
    if usable:
        fact = f"/dev/shm has {size(seen.mount_size or 0)}, {size(seen.mount_free or 0)} of it free"
    elif seen.mount_size is None:
        fact = "there is no /dev/shm"
    else:
        fact = "this user may not write to /dev/shm"
    cure = "Enlarge it: docker's --shm-size=2g, or mount -o remount,size=2g /dev/shm."
    if usable and (seen.mount_free or 0) >= _SMALL_SHM:
        yield _good(fact)
    elif seen.memfd:
        yield _limit(f"{fact}; tensors that do not fit there go to memfds", cure)
    else:
        yield _broken(f"{fact}, and the kernel gives no memfd", cure)
    if usable and not seen.memfd and (seen.mount_free or 0) >= _SMALL_SHM:
        yield _limit(
            "the kernel gives no memfd, so nothing takes over when /dev/shm is full",
            "Let memfd_create pass in the container's seccomp profile.",
        )


def _judge_memory(seen: machine.SharedMemory) -> Iterator[Finding]:
    fact = f"{size(seen.total)}, {size(seen.available)} of it available"
    left = seen.available
    if seen.group_limit is not None:
        left = min(left, seen.group_left or 0)
        fact += f"; the control group allows {size(seen.group_limit)} and has {size(max(seen.group_left or 0, 0))} left"
    if left >= _LITTLE_MEMORY:
        yield _good(fact)
    else:
        cure = (
            "Raise the container's memory limit (docker's --memory), or run less beside it."
            if left < seen.available
            else "Run less beside it, or use a machine with more memory."
        )
        yield _limit(f"{fact}: too little for most frameworks", cure)


def _judge_descriptors(seen: int | None) -> Iterator[Finding]:
    fact = "any number of open files" if seen is None else f"up to {seen:,} open files in a process"
    if seen is None or seen >= _FEW_DESCRIPTORS:
        yield _good(fact)
    else:
        yield _limit(f"{fact}, of which each model takes about 15", "Raise it: ulimit -n 4096.")


def _judge_gpus(seen: machine.Gpus) -> Iterator[Finding]:
    if seen.problem:
        yield _limit(seen.problem, "Have `nvidia-smi` work here: in a container start it with --gpus=all.")
    elif not seen.found:
        yield _good('no NVIDIA GPU; models run with device="cpu"')
    else:
        fact = ", ".join(f"cuda:{place} {gpu.name}" for place, gpu in enumerate(seen.found))
        if seen.visible < len(seen.found):
            yield _limit(
                f"{fact}; CUDA_VISIBLE_DEVICES leaves {seen.visible} of them to this process",
                "Unset CUDA_VISIBLE_DEVICES to use them all.",
            )
        else:
            yield _good(fact)


@dataclass(frozen=True)
class _Uv:
    version: str | None
    path: str | None
    problem: str | None


def _uv() -> _Uv:
    import subprocess

    import uv

    try:
        path = uv.find_uv_bin()
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        return _Uv(None, None, str(error))
    return _Uv(told.stdout.split()[1], path, None)


def _judge_uv(seen: _Uv) -> Iterator[Finding]:
    if seen.problem:
        yield _broken(
            f"it cannot be run, so no environment can be built: {seen.problem}",
            "Reinstall it: pip install --force-reinstall uv",
        )
    else:
        yield _good(f"{seen.version} ({seen.path})")


def _judge_cache(seen: machine.Cache) -> Iterator[Finding]:
    fact = f"{seen.root}: {seen.environments} environments, {seen.names} of them named"
    if seen.packages:
        fact += f"; {seen.packages} unpacked package{'s' * (seen.packages != 1)}, {size(seen.packages_size)}"
    if seen.problem:
        yield _broken(
            f"{seen.root}: {seen.problem}",
            "Set OPEXEC_CACHE to a folder on another disk, or one of your own.",
        )
        return
    if seen.free is not None:
        fact += f"; {size(seen.free)} free on its disk"
    if seen.free is not None and seen.free < _LITTLE_DISK:
        yield _limit(
            f"{fact}, too little for a large framework",
            "Make room (opexec env prune --older-than 30d; opexec packages prune --older-than 30d; uv cache prune), or set OPEXEC_CACHE to another disk.",
        )
    else:
        yield _good(fact)


@dataclass(frozen=True)
class _Python:
    version: str | None
    path: str
    implementation: str | None
    free_threaded: bool
    numpy: str | None
    worker: bool
    """Whether opexec takes it for an `Environment` on its own; others it takes by their path."""
    problem: str | None = None
    """Why it was passed over: it did not say what it is. Then nothing else is known of it."""


def _pythons() -> tuple[_Python, ...] | None:
    """None where nobody can be asked, because there is nowhere to keep the answers."""
    try:
        caches.folder("interpreters")
    except BuildError:
        return None
    seen = interpreter_search.survey()
    passed_over = (
        _Python(None, str(path), None, False, None, False, why)
        for path, why in sorted(seen.passed_over.items())
    )
    return (
        *(_described(each) for each in sorted(seen.found, key=lambda each: each.version_info)),
        *passed_over,
    )


def _described(found: Interpreter) -> _Python:
    fits = found.implementation == "cpython" and not found.free_threaded and found.version_info >= OLDEST
    return _Python(
        found.version, str(found.path), found.implementation, found.free_threaded, found.numpy, fits
    )


def _judge_pythons(seen: tuple[_Python, ...] | None) -> Iterator[Finding]:
    if seen is None:
        yield _limit(
            "not looked for: what they say of themselves is kept in the cache", "Mend the cache first, above."
        )
        return
    fitting = [each for each in seen if each.worker]
    lines = sorted({tuple(map(int, (each.version or "").split(".")[:2])) for each in fitting})
    if fitting:
        yield _good(f"workers can run in Python {', '.join(f'{major}.{minor}' for major, minor in lines)}")
    else:
        yield _limit(
            "no Python that workers can run in was found",
            "Install CPython >= {}.{}, with pyenv, uv (uv python install 3.12), conda or the system's packages.".format(
                *OLDEST
            ),
        )
    for each in seen:
        if each.problem is None:
            yield _good(f"{_name(each)} ({each.path})" + ("" if each.worker else f": {_why_not(each)}"))
        elif each.problem == TOO_OLD_TO_SAY:
            yield _good(f"{each.path}: {_too_old()}")
        elif not _NOT_SELECTED.search(each.problem):
            yield _limit(f"{each.path} does not work: {each.problem}", _cure(Path(each.path)))
    if idle := [each.path for each in seen if each.problem and _NOT_SELECTED.search(each.problem)]:
        yield _good(
            f"{', '.join(idle)}: shims of versions that are not selected here; opexec finds the versions themselves"
        )


# What pyenv, asdf and mise say where a shim has nothing to run, and nothing is wrong.
_NOT_SELECTED = re.compile(r"command not found|[Nn]o version is set|[Nn]o preset version")


def _cure(path: Path) -> str:
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    if path.is_relative_to(pyenv / "versions"):
        name = path.relative_to(pyenv / "versions").parts[0]
        how = f"Make it anew (pyenv install --force {name}) or remove it (pyenv uninstall {name})"
    elif path.is_relative_to(pyenv / "shims"):
        how = (
            "Install the version that it is to run, or select another (pyenv versions, pyenv global VERSION)"
        )
    else:
        how = "Install it anew, or remove it"
    return f"{how}. Until then opexec does without it."


def _name(python: _Python) -> str:
    name = {"cpython": "CPython", "pypy": "PyPy"}.get(python.implementation or "", python.implementation)
    return f"{name} {python.version}{' free-threaded' if python.free_threaded else ''}"


def _why_not(python: _Python) -> str:
    if tuple(map(int, re.findall(r"\d+", python.version or "")[:2])) < OLDEST:
        return _too_old()
    return "only taken by its path: env=PATH, or Environment(python=PATH)"


def _too_old() -> str:
    return "too old for workers, which need {}.{}".format(*OLDEST)


def _plain(seen: Any) -> Any:
    """As JSON has it."""
    if dataclasses.is_dataclass(seen) and not isinstance(seen, type):
        return {field.name: _plain(getattr(seen, field.name)) for field in dataclasses.fields(seen)}
    if isinstance(seen, tuple):
        return [_plain(each) for each in seen]
    return os.fspath(seen) if isinstance(seen, Path) else seen


_EXAMINATIONS: tuple[tuple[str, Callable[[], Any], Callable[[Any], Iterator[Finding]]], ...] = (
    ("opexec", _own, _judge_own),
    ("kernel", machine.kernel, _judge_kernel),
    ("cores", machine.cores, _judge_cores),
    ("shared memory", machine.shared_memory, _judge_shared_memory),
    ("memory", machine.shared_memory, _judge_memory),
    ("descriptors", machine.descriptors, _judge_descriptors),
    ("gpu", machine.gpus, _judge_gpus),
    ("uv", _uv, _judge_uv),
    ("cache", machine.cache, _judge_cache),
    ("interpreters", _pythons, _judge_pythons),
)
