"""What follows a worker's death: it is buried, its crash is counted, and the next one is started, at once or later, or not."""

from __future__ import annotations

import copy
import functools
import logging
import time
import weakref
from collections.abc import Callable

from ..errors import OpexecError, WorkerDied
from ..processes import leaving
from . import watcher
from .link import Link
from .places import Places
from .policies import RestartPolicy
from .replica import Replica

#: Between a worker's death and what is done about what it left, in seconds.
_MOMENT_S = 0.005


class Restarts:
    """See the module. `lost` may be called in any thread, for the same death too; the rest happens in a thread of its own."""

    def __init__(self, places: Places, policy: RestartPolicy | None) -> None:
        self._places = places
        self._policy = policy

    def lost(self, link: Link) -> None:
        """A worker has died, or broke the protocol: it gets no more calls, and a thread sees to its end. Only the first time counts."""
        places = self._places
        with places.lock:
            place = places.place_of(link)
            if place is None or link.left or places.closed:
                return
            link.left = True
            places.wait_if_none()
            if leaving.under_way:  # nobody restarts it, or has its end told
                assert link.connection.dead is not None
                places.startup.fail(link.connection.dead)
                return
            # Information: what becomes of it now is told at the level it deserves.
            place.enter("restarting" if self._policy else "stopped", "its worker has ended", logging.INFO)
            places.show()
        self._aside(place, functools.partial(self._bury, place, link))

    def _aside(self, place: Replica, do: Callable[[], None]) -> None:
        """Have a thread do it, soon."""

        def work() -> None:
            try:
                do()
            except BaseException as error:  # no call may wait for a worker that nobody starts
                if not self._places.closed:
                    self.give_up(place, "failed", error)
                raise

        watcher.aside(f"opexec-restarting-{self._places.name}", work)

    def _bury(self, place: Replica, link: Link) -> None:
        error = link.connection.bury()
        # Those who waited are told by now: to take down its memory keeps a core busy that they would need.
        time.sleep(_MOMENT_S)
        link.close(error, grace=0)
        self._places.note(link)
        with place.replacing:
            if place.link is not link:  # `restart` was quicker
                return
            place.error = error
            self._start_again(place, error)

    def _start_again(self, place: Replica, error: BaseException) -> None:
        """Start the next worker of a place whose last one ended with `error`: now, later, or not. Under `replacing`."""
        places = self._places
        while not places.closed:
            if place.crashes is None:
                self.give_up(place, "stopped", error)
                return
            delay = place.crashes.count()
            if delay is None:
                assert self._policy is not None
                self.give_up(
                    place, "failed", _too_often(places.name, place.crashes.recent, self._policy, error)
                )
                return
            if delay:
                with places.lock:
                    place.enter("restarting", f"the next start is in {delay:.3g} s, after: {error}")
                    place.timer = watcher.at(
                        time.monotonic() + delay, functools.partial(_resume, weakref.ref(self), place)
                    )
                return
            failure = self.attempt(place, f"after: {error}")
            if failure is None:
                return
            error = failure

    def attempt(self, place: Replica, why: str) -> BaseException | None:
        """Start a worker for a place that has none; returns what it failed with. Under `replacing`."""
        with self._places.lock:
            place.enter("restarting", why)
        began = time.monotonic()
        try:
            self._places.install(place, self._places.connect(place), f"restarted {why}")
        except BaseException as error:
            place.error = error
            if place.crashes is not None:
                place.crashes.pass_over(time.monotonic() - began)
            return error
        return None

    def resume(self, place: Replica) -> None:
        """Start the worker whose start was put off."""
        with place.replacing:
            timer, place.timer = place.timer, None
            if timer is None or self._places.closed:  # `restart` was quicker
                return
            failure = self.attempt(place, f"after: {place.error}")
            if failure is not None:
                self._start_again(place, failure)

    def give_up(self, place: Replica, state: str, error: BaseException) -> None:
        """Leave a place without a worker."""
        with self._places.lock:
            place.error = error
            place.enter(state, str(error))
            self._places.give_up_if_none(error)

    def cause(self, place: Replica) -> OpexecError:
        """Why a place whose next worker is being started has none."""
        if isinstance(place.error, OpexecError):
            return copy.copy(place.error)
        return WorkerDied(
            f"the worker of model {self._places.name!r} has ended, and another one is being started",
            pid=place.pid or 0,
            exit_code=None,
            signal=None,
            stderr=(),
            stage="idle",
        )


def _resume(own: weakref.ref[Restarts], place: Replica) -> None:
    restarts = own()
    if restarts is not None:
        restarts._aside(place, functools.partial(restarts.resume, place))


def _too_often(name: str, count: int, policy: RestartPolicy, last: BaseException) -> BaseException:
    """The last cause, saying that it was one too many."""
    error = copy.copy(last)
    error.args = (
        f"model {name!r} is not restarted any more: {count} crashes within {policy.window:g} s, and max_restarts is {policy.max_restarts}. "
        f"The last: {last.args[0] if last.args else last}. Call restart() to try again",
        *error.args[1:],
    )
    return error
