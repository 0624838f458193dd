"""From a request to the interpreter of an environment in the cache: which Python, which versions, and whether it is there already.

    <cache>/requests/<digest>.json   the environment that a request led to; the digest is of all that the request depends on
    <cache>/requests/<digest>.lock   locked by whoever works it out
    <cache>/requests/<digest>.work/  uv's input and output meanwhile

A request says what may be there, such as ``numpy<2`` on the caller's Python; the environment is what came of it: exact versions,
from these sources, on this build of that interpreter. So a request is worked out once, by a resolver that may need the network
and the choice of an interpreter, and from then on it costs the reading of one file.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BuildError
from ..files import caches
from . import build as environment_build
from . import installer, interpreter_search, version_choice
from .installer import Uv, UvFailed
from .interpreters import Interpreter
from .requirement import content_of, local_path, pinned_in
from .version_choice import Chosen, NoVersions, Wanted

if TYPE_CHECKING:
    from ..environment import Environment

_FORMAT = 2  # of a request's record; a new number has all of them worked out anew
_Report = Callable[[str], None]


def resolve(environment: Environment, report: _Report) -> Path:
    """The interpreter of the environment, built if need be. Raises BuildError."""
    if environment.conda:
        from . import conda as environment_conda

        return environment_conda.resolve(environment, report)
    request = _Request(environment, report)
    home = request.kept_home()
    if home is None or not environment_build.is_complete(home):
        home = request.carry_out()
    caches.touch(home / "used")
    return environment_build.python_in(home)


@dataclass(frozen=True)
class _Kept:
    """A request's record, as far as it still holds."""

    base: Interpreter
    home: Path
    passed_over: Sequence[str]

    @property
    def lock(self) -> Path:
        return self.home / "requirements.lock"


class _Request:
    """One request in the circumstances of this moment: the settings of pip and uv, the interpreters, the files it names."""

    def __init__(self, environment: Environment, report: _Report) -> None:
        self._environment = environment
        self._report = report
        self._settings = installer.settings(
            index_url=environment.index_url,
            extra_index_urls=environment.extra_index_urls,
            find_links=environment.find_links,
        )
        self._sources = installer.fingerprint(self._settings)
        self._lock = _read_lock(environment.lock) if environment.lock else None
        self._python = environment.python or (version_choice.python_of(self._lock) if self._lock else None)
        self._first = self._best()
        self._local = [
            content_of(path)
            for item in (*environment.requirements, *environment.constraints)
            if (path := local_path(item))
        ]
        digest = caches.digest(
            {
                "format": _FORMAT,
                "python": self._python,
                "first": environment_build.identity(self._first),
                "requirements": environment.requirements,
                "constraints": environment.constraints,
                "local": self._local,
                "lock": self._lock,
                "uv": self._sources,
            }
        )
        self._record = caches.folder("requests") / f"{digest}.json"

    def _best(self) -> Interpreter:
        if self._python is None:
            return interpreter_search.calling()
        return interpreter_search.base_of(interpreter_search.find(self._python, self._report))

    @functools.cached_property
    def _others(self) -> list[Interpreter]:
        return interpreter_search.alternatives(self._python, self._first)

    def kept_home(self) -> Path | None:
        """The folder of the environment that this request led to before; None if it never did, or what decided then has changed."""
        kept = self._kept()
        return None if kept is None else kept.home

    def _kept(self) -> _Kept | None:
        record = caches.read_json(self._record)
        try:
            home = caches.folder("environments") / record["key"]
            alternatives = record["alternatives"]
            base = record["base"]
            passed_over = list(record["passed_over"])
        except (KeyError, TypeError):
            return None
        if not (home / "requirements.lock").is_file():
            return None  # removed, or its versions are to be chosen anew
        if alternatives is None:
            return _Kept(self._first, home, passed_over)
        # The first choice did not do. Another may by now be better than the one taken then.
        if alternatives != self._digest_of_others():
            return None
        for other in self._others:
            if environment_build.identity(other) == base:
                return _Kept(other, home, passed_over)
        return None

    def _digest_of_others(self) -> str:
        return caches.digest([environment_build.identity(other) for other in self._others])

    def carry_out(self) -> Path:
        """Choose interpreter and versions, and build. Raises BuildError, and then keeps nothing of it."""
        with caches.locked(
            self._record.with_suffix(".lock"),
            lambda holder: self._report(f"waiting for {holder}, which builds it"),
        ) as lock:
            began = time.monotonic()
            kept = self._kept()
            if kept is not None and environment_build.is_complete(kept.home):
                return kept.home
            if kept is not None:
                chosen, home = Chosen(kept.base, _read_lock(kept.lock), kept.passed_over), kept.home
            else:
                chosen = self._choose(lock)
                home = caches.folder("environments") / self._key(chosen)
            environment_build.Build(
                environment=self._environment,
                chosen=chosen,
                settings=self._settings,
                home=home,
                locks=[lock],
                report=self._report,
                began=began,
                pinned_before=kept is not None,
            ).run()
            self._keep(chosen, home)
            return home

    def _choose(self, lock: int) -> Chosen:
        uv = Uv(self._record.with_suffix(".work"), self._settings, [lock], self._report)
        try:
            uv.prepare()
            return version_choice.choose(self._wanted(), uv, self._report)
        except UvFailed as failure:
            words = environment_build.explain(self._environment, self._first, self._settings, str(failure))
            usual = "Change the requirements, or ask for another Python."
            advice = failure.advice if isinstance(failure, NoVersions) else usual
            raise BuildError(f"{words}\n{advice}") from None
        except OSError as error:
            raise BuildError(
                f"cannot build the environment {self._environment}: {error}. Make room, or set OPEXEC_CACHE."
            ) from error
        finally:
            caches.remove(uv.work)

    def _keep(self, chosen: Chosen, home: Path) -> None:
        if chosen.base != self._first and chosen.base not in self._others:
            del self._others  # it was downloaded since, and the next one who asks will find it among them
        record = {
            "key": home.name,
            "base": environment_build.identity(chosen.base),
            "alternatives": None if chosen.base == self._first else self._digest_of_others(),
            "passed_over": list(chosen.passed_over),
        }
        caches.write_json(self._record, record)

    def _wanted(self) -> Wanted:
        return Wanted(
            title=str(self._environment),
            requirements=self._environment.requirements,
            constraints=self._environment.constraints,
            lock=self._lock,
            lock_path=self._environment.lock,
            python=self._python,
            first=self._first,
            others=(lambda: self._others) if interpreter_search.leaves_choice(self._python) else None,
            settings=self._settings,
        )

    def _key(self, chosen: Chosen) -> str:
        """The name of the environment's folder: a digest of everything that decides what it holds."""
        return caches.digest(
            {
                "format": environment_build.FORMAT,
                "lock": [line for line in chosen.lock.splitlines() if line and not line.startswith("#")],
                "local": [content_of(path) for item in pinned_in(chosen.lock) if (path := local_path(item))],
                "interpreter": environment_build.identity(chosen.base),
                "uv": self._sources,
            }
        )


def _read_lock(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(
            f"expected lock to be a file of exact versions, but {path} cannot be read: {error}."
        ) from error
