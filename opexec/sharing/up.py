"""`opexec up`: the models of a file, loaded, shared and kept until a signal ends it."""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoadError, OpexecError
from ..model import Model
from ..supervisor import Supervisor
from ..threads import side_by_side
from . import models_file

if TYPE_CHECKING:
    from .shared import Share

_log = logging.getLogger("opexec.up")

_DRAIN_S = 5.0


class _Up:
    """One model that is up."""

    def __init__(self, arguments: dict[str, Any], model: Model, share: Share) -> None:
        self.arguments = arguments
        self.model = model
        self.share = share

    def end(self) -> None:
        self.share.close()
        self.model.close(drain=True, timeout=_DRAIN_S)


class House:
    """The models of a file that are up. `follow` makes them what the file says; `close` ends them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._up: dict[str, _Up] = {}
        self._loading: list[Model] = []
        self._closed = False
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._up)

    def follow(self) -> None:
        """Read the file again: load what is new, replace what has changed, end what is gone; what stays the same is not touched.

        A model that has changed goes on until the new one is loaded. Raises FileError, with nothing changed; or LoadError with the
        `failures`: those are not up, or still as they were, and all others are as the file says.
        """
        wanted = models_file.read(self.path)
        for name in [name for name in self._up if name not in wanted]:
            _log.info("%s: is not in %s any more; ending it", name, self.path)
            self._up.pop(name).end()
        changed = {
            name: arguments
            for name, arguments in wanted.items()
            if name not in self._up or self._up[name].arguments != arguments
        }
        failures: dict[str, BaseException] = {}
        for name, model in self._load(changed).items():
            try:
                model.wait_ready()
                self._put(name, changed[name], model)
            except Exception as error:
                model.close()
                failures[name] = error
                _log.error("%s: %s", name, error)
        self._loading = []
        if failures:
            texts = [f"{name!r}: {error}" for name, error in failures.items()]
            raise LoadError(
                f"{len(failures)} of {len(wanted)} models of {self.path} are not up:\n"
                + "\n".join("    " + line for text in texts for line in text.splitlines()),
                stage="several",
                failures=failures,
            )

    def _load(self, wanted: dict[str, dict[str, Any]]) -> dict[str, Model]:
        supervisor = Supervisor()  # so that no more load at once than there are cores
        models: dict[str, Model] = {}
        for name, arguments in wanted.items():
            _log.info("%s: loading %s", name, arguments["source"])
            with self._lock:
                if self._closed:
                    break
                models[name] = supervisor.load(wait_ready=False, **arguments)
                self._loading.append(models[name])
        return models

    def _put(self, name: str, arguments: dict[str, Any], model: Model) -> None:
        """Share a model that is loaded, in the place of one of that name."""
        with self._lock:
            former = self._up.pop(name, None)
            if former is not None:
                former.share.close()
            try:
                self._up[name] = _Up(arguments, model, model.share(name))
            except BaseException:
                if former is not None:
                    former.share = former.model.share(name)
                    self._up[name] = former
                raise
            _log.info("%s: shared at %s", name, self._up[name].share.path)
        if former is not None:
            former.end()

    def close(self) -> None:
        """End everything, side by side, and what is loading too. Calls that have been made are answered, for some seconds."""
        with self._lock:
            self._closed = True
            ends: list[Callable[[], None]] = [one.end for one in self._up.values()]
            ends += [model.close for model in self._loading]
            self._up = {}
        side_by_side(lambda end: end(), ends, "opexec-closing")


def run(path: Path) -> None:
    """Bring the models of a file up and keep them until SIGTERM or SIGINT; SIGHUP has the file read again. From the main thread.

    Raises OpexecError if they do not all come up at first. Later, what goes wrong is logged, and what is up stays up.
    """
    house = House(path)
    events: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
    former = {
        number: signal.signal(number, lambda number, frame: events.put(number))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    }
    try:
        models_file.read(path)
        _follow(house, events)
        _serve(house, events)
    finally:
        # From here on a second Ctrl-C ends it at once.
        for number, handler in former.items():
            signal.signal(number, handler)
        house.close()
    _log.info("all models have ended")


def _serve(house: House, events: queue.SimpleQueue[int | BaseException | None]) -> None:
    following, again, first = True, False, True
    while True:
        event = events.get()
        if event in (signal.SIGTERM, signal.SIGINT):
            _log.info("received %s; ending all models", signal.Signals(event).name)
            return
        if event == signal.SIGHUP:
            again = True
        else:  # reading and loading has come to its end
            following = False
            if isinstance(event, BaseException):
                if first or not isinstance(event, OpexecError):
                    raise event
                _log.error("%s", event)
            else:
                _log.info("up: %s", ", ".join(house.names))
            first = False
        if again and not following:
            _log.info("reading %s again", house.path)
            following, again = True, False
            _follow(house, events)


def _follow(house: House, events: queue.SimpleQueue[int | BaseException | None]) -> None:
    def follow() -> None:
        try:
            house.follow()
        except BaseException as error:
            events.put(error)
        else:
            events.put(None)

    threading.Thread(target=follow, name="opexec-up", daemon=True).start()
