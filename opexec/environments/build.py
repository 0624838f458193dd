"""Building an environment: a venv made by uv in the cache, in a folder named by a digest of everything that decides what it holds.

    <cache>/environments/<key>/venv/               the venv itself; a conda environment's prefix has the same name
    <cache>/environments/<key>/requirements.lock   the exact versions, kept so that a rebuild gives the same ones
    <cache>/environments/<key>/complete.json       what was asked for and what came of it; written last
    <cache>/environments/<key>/used                its time is when the environment was last asked for, to a minute
    <cache>/environments/<key>/building/           uv's input and output, only while it is built
    <cache>/environments/<key>.lock                locked by whoever builds

It is built where it will stay, not moved there when done: a venv's scripts, its activation files and what
packages record of their prefix hold its absolute path, and a moved one is right only as far as every package
allows. That nobody uses a half-built one is up to ``complete.json`` instead: it appears in one step, after
everything else. What a killed builder left is removed by the next one.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..credentials import without_credentials
from ..errors import BuildError
from ..files import caches
from . import installer
from .build_progress import UvLog, counted, readable_size
from .installer import Uv, UvFailed
from .interpreters import Interpreter, probe
from .requirement import pinned_in
from .version_choice import Chosen, refreshed

if TYPE_CHECKING:
    from ..environment import Environment

FORMAT = 2  # of an environment's folder; a new number leaves old ones unused


def python_in(home: Path) -> Path:
    return home / "venv" / "bin" / "python"


def is_complete(home: Path) -> bool:
    return (home / "complete.json").exists() and python_in(home).exists()


def identity(base: Interpreter) -> list[str]:
    """What tells one build of an interpreter from another."""
    return [os.path.realpath(base.path), base.version, base.build, base.soabi, base.platform]


@dataclass(frozen=True)
class Build:
    """One building of one environment from exact versions.

    `locks`: descriptors of locks that the caller holds and uv is to hold on to. `began`: time.monotonic() of when the work began.
    `pinned_before`: whether the versions are those of an earlier build.
    """

    environment: Environment
    chosen: Chosen
    settings: installer.Settings
    home: Path
    locks: Sequence[int]
    report: Callable[[str], None]
    began: float
    pinned_before: bool

    def run(self) -> None:
        """Build it, unless another has meanwhile. Raises BuildError, and then leaves nothing but an earlier build's lock file."""
        with building(self.home, self.report) as lock:
            if lock is None:
                return
            uv = Uv(self.home / "building", self.settings, [*self.locks, lock], self.report)
            try:
                uv.prepare()
                self._install(uv)
            except UvFailed as error:
                raise BuildError(self._explain(str(error))) from None
            caches.write_text(self.home / "requirements.lock", self.chosen.lock)
            base = self.chosen.base
            made_with = {"path": str(base.path), "version": base.version, "platform": base.platform}
            made_with["implementation"] = base.implementation
            finish(self.environment, self.home, made_with, self.chosen.passed_over, self.began, self.report)

    def _install(self, uv: Uv) -> None:
        pinned = pinned_in(self.chosen.lock)
        exact = uv.work / "exact.txt"
        exact.write_text(self.chosen.lock, encoding="utf-8")
        self.report(f"installing {counted(len(pinned))}")
        uv("venv", "--no-project", "--python", self.chosen.base.path, self.home / "venv")
        # Compiled here, once: where PYTHONDONTWRITEBYTECODE is set, every start of a worker would compile it all again.
        options = ["--no-deps", "--compile-bytecode", *self.settings.pip_options, *refreshed(pinned)]
        log = UvLog(self.report)
        uv("pip", "install", "-r", exact, "--python", python_in(self.home), *options, on_line=log)

    def _explain(self, words: str) -> str:
        text = explain(self.environment, self.chosen.base, self.settings, words)
        if self.pinned_before:
            pinned = self.home / "requirements.lock"
            return f"{text}\nThe versions are those of an earlier build; delete {pinned} to choose them anew."
        return f"{text}\nChange the requirements, or ask for another Python."


@contextlib.contextmanager
def building(home: Path, report: Callable[[str], None]) -> Iterator[int | None]:
    """Hold an environment's lock while it is built in an emptied folder; yields the descriptor, or None if it is there by now.

    Where the building fails, nothing is left but an earlier build's lock file. Raises BuildError for an OSError.
    """
    with caches.locked(
        home.with_suffix(".lock"), lambda holder: report(f"waiting for {holder}, which builds it")
    ) as lock:
        if is_complete(home):
            yield None
            return
        try:
            (home / "complete.json").unlink(missing_ok=True)  # there is one where a finished venv was damaged
            _discard(home)
            home.mkdir(parents=True, exist_ok=True)
            yield lock
        except BaseException as error:
            _discard(home)
            with contextlib.suppress(OSError):  # it holds the lock file of an earlier build
                (home / "used").unlink(missing_ok=True)
                home.rmdir()
            if isinstance(error, OSError):
                raise BuildError(f"cannot build an environment in {home}: {error}") from error
            raise


def finish(
    environment: Environment,
    home: Path,
    made_with: dict[str, str],
    passed_over: Sequence[str],
    began: float,
    report: Callable[[str], None],
) -> None:
    """Check what was installed, and declare it complete. Raises BuildError."""
    python = probe(python_in(home))
    if python.numpy is None:
        raise BuildError(
            f"expected numpy in the environment {environment}, because a worker needs it, but what was installed has none."
        )
    caches.remove(home / "building")
    packages = _installed(python)
    size = caches.disk_usage(home / "venv")
    seconds = time.monotonic() - began
    summary = {
        "format": FORMAT,
        "requested": _for_show(environment.request()),
        "made_with": made_with,
        "passed_over": list(passed_over),
        "packages": packages,
        "size": size,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
    }
    caches.write_json(home / "complete.json", summary)
    report(
        f"ready in {seconds:.1f} s: Python {python.version}, {counted(len(packages))}, {readable_size(size)}"
    )


def explain(environment: Environment, base: Interpreter, settings: installer.Settings, words: str) -> str:
    """What uv says, and of what."""
    lines = [f"cannot build the environment {environment}", f"from {base}. uv says:"]
    lines += [f"  {line}".rstrip() for line in words.splitlines()]
    if sources := installer.fingerprint(settings):
        lines.append(
            "It looked where uv's and pip's settings say: "
            + ", ".join(f"{k}={v}" for k, v in sources.items())
        )
    return "\n".join(lines)


def _discard(home: Path) -> None:
    """Remove a venv that is not complete, and what was needed to build it."""
    for name in ("building", "venv"):
        caches.remove(home / name)


def _installed(python: Interpreter) -> dict[str, str]:
    """The packages that are there, by the names they give themselves, with their versions."""
    from importlib.metadata import distributions

    folders = [str(path) for path in python.prefix.glob("lib*/python*/site-packages")]
    found = {dist.metadata["Name"]: dist.version for dist in distributions(path=folders)}
    return dict(sorted((name, version) for name, version in found.items() if name))


def _for_show(request: dict[str, Any]) -> dict[str, Any]:
    """Without what is secret or may be, and without what does not decide what is installed."""
    request.pop("env_vars", None)
    return {
        name: without_credentials(value) if isinstance(value, str)
        else [without_credentials(item) for item in value] if isinstance(value, list)
        else value
        for name, value in request.items()
    }  # fmt: skip
