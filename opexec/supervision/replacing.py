"""Replacing workers that could go on: by one that is loaded beside them, or by another model's. No call fails, but for `restart` of a single one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ..errors import OpexecError, WorkerDied
from ..loading.launch import Launch
from ..loading.request import Specs
from .link import Link
from .places import Places
from .replica import Replica, tell
from .restarts import Restarts

#: How often one that waits for calls to end looks whether they have, in seconds.
_DRAIN_S = 0.002


class Replacing:
    """See the module."""

    def __init__(self, places: Places, restarts: Restarts) -> None:
        self._places = places
        self._restarts = restarts
        self._turn = threading.Lock()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """One replacement by the user at a time. Raises ModelClosed."""
        with self._turn:
            if self._places.closed:
                raise self._places.is_closed()
            yield

    @property
    def under_way(self) -> bool:
        """Whether the user is replacing workers."""
        return self._turn.locked()

    def restart(self) -> None:
        """See `Model.restart`. In turn."""
        for place in self._places:
            with place.replacing:
                if self._places.closed:
                    raise self._places.is_closed()
                place.stop_timer()
                if place.crashes is not None:
                    place.crashes.forgive()
                if len(self._places) == 1 or place.link is None or not place.link.serving:
                    self._alone(place)
                else:
                    self.beside(place, "restart()")

    def _alone(self, place: Replica) -> None:
        """End the worker, which fails its calls, and start another."""
        places = self._places
        old = place.link
        with places.lock:
            if old is not None and not old.left:
                old.left = True
            else:
                old = None
            places.wait_anew()
            places.wait_if_none()
            place.enter("restarting", "by restart()")
            places.show()
        before = place.error
        if old is not None:
            error = before = _goodbye(
                places.name, old, "was ended by restart() with this call in flight", "call"
            )
            old.close(error, grace=0)
            places.note(old)
        elif place.link is not None:  # it has died: its memory is to be gone before there is another one's
            place.link.close(place.link.connection.bury(), grace=0)
        failure = self._restarts.attempt(place, "by restart()")
        if failure is not None:
            if places.closed:
                raise places.is_closed() from None
            self._restarts.give_up(place, "failed", before or failure)
            raise failure

    def beside(self, place: Replica, why: str) -> None:
        """Start another worker and give it the place; the one that had it finishes its calls. Under `replacing`."""
        link = self._places.connect(place)
        old = self._places.install(place, link, f"replaced: {why}")
        if old is not None:
            self._drain_aside(old, why)

    def _drain_aside(self, link: Link, why: str) -> threading.Thread | None:
        """`_drain`, in a thread; None if that is done, because there can be no more threads."""
        thread = threading.Thread(
            target=self._drain, args=(link, why), name=f"opexec-draining-{self._places.name}", daemon=True
        )
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            self._drain(link, why)
            return None
        return thread

    def _drain(self, link: Link, why: str) -> None:
        """Let a worker that gets no more calls finish those it has, and end it."""
        places = self._places
        tell(places.name, link.process.pid, "draining", why)
        error = _goodbye(places.name, link, f"was replaced: {why}", "idle")
        while not places.closed and link.process.alive and not link.connection.retire(error):
            time.sleep(_DRAIN_S)
        if not link.process.alive:
            link.connection.bury()
        link.close(error if not places.closed else places.is_closed(), grace=1)
        places.note(link)
        with places.lock:
            if link in places.leaving:
                places.leaving.remove(link)
        tell(places.name, link.process.pid, "stopped", why)

    def swap(self, launch: Launch, check: Callable[[Specs], None], wait: bool) -> None:
        """Put workers of `launch` into all places; `check` may refuse their specs. In turn."""
        places = self._places
        with contextlib.ExitStack() as held:
            for place in places:  # no restart of the old model meanwhile
                held.enter_context(place.replacing)
            links = self._load(launch, check)
            places.launch = launch
            leaving = []
            try:
                for place in places:
                    place.stop_timer()
                    with places.lock:
                        places.wait_anew()
                    old = places.install(place, links.pop(0), f"swap() to {launch.what}")
                    if old is not None and old in places.leaving:
                        leaving.append(self._drain_aside(old, "swap()"))
            finally:
                for link in links:  # the model was closed meanwhile
                    link.close(places.is_closed(), grace=0)
        if wait:
            for thread in leaving:
                if thread is not None:
                    thread.join()

    def _load(self, launch: Launch, check: Callable[[Specs], None]) -> list[Link]:
        """A worker of another model for each place, side by side."""
        places = self._places
        with ThreadPoolExecutor(len(places), thread_name_prefix=f"opexec-swap-{places.name}") as pool:
            starting = [pool.submit(places.connect, place, launch) for place in places]
        links = [one.result() for one in starting if one.exception() is None]
        try:
            for one in starting:
                one.result()
            check(links[0].specs)
        except BaseException:
            for link in links:
                link.close(OpexecError("it was not to be swapped in"), grace=0)
            raise
        return links


def _goodbye(name: str, link: Link, why: str, stage: str) -> WorkerDied:
    """What the calls of a worker that is ended on purpose fail with."""
    return WorkerDied(
        f"worker {name!r} (pid {link.process.pid}) {why}",
        pid=link.process.pid,
        exit_code=None,
        signal=None,
        stderr=(),
        stage=stage,
    )
