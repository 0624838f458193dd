"""The workers of one model, as the model sees them: open them, get one for a call, tell what became of a call, end them.

A worker's end is seen by whoever waits for an answer of it, else by the watcher. Either has `lost` called, and a thread sees to the rest
(`restarts`). How they are replaced while they could go on: `replacing`, `recycling`, and `deadlines` for one that is stuck.
"""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ..connection.calls import Call
from ..errors import ModelClosed, OpexecError
from ..ipc.packer import Packer
from ..loading.launch import Launch
from ..loading.request import Specs
from ..memory import SharedMemory
from ..model import WorkerInfo
from ..threads import side_by_side
from . import deadlines
from .link import Link
from .places import Places
from .policies import Supervision
from .recycling import Recycling
from .replacing import Replacing
from .restarts import Restarts
from .startup import Startup

#: How often one that waits for calls to end looks whether they have, in seconds.
_DRAIN_S = 0.002


class Replicas:
    """See the module. `publish` is told which worker may be called without asking here; `adopt` the specs of each that is loaded."""

    def __init__(
        self,
        name: str,
        launch: Launch,
        supervision: Supervision,
        packer: Packer,
        memory: SharedMemory,
        wait: str,
        publish: Callable[[Link | None], None],
        adopt: Callable[[Specs], None],
    ) -> None:
        own = weakref.ref(self)
        self._supervision = supervision
        self._places = Places(
            name,
            launch,
            supervision,
            packer,
            memory,
            wait,
            publish,
            adopt,
            lambda link: _lost(own, link),
            lambda link, call: _overdue(own, link, call),
        )
        self._restarts = Restarts(self._places, supervision.policy)
        self.replacing = Replacing(self._places, self._restarts)
        self._recycling = Recycling(self._places, self.replacing, supervision)

    # Loading, the first time

    def open(self) -> None:
        """Load all workers, side by side. Raises what the first that failed raised; the others are ended then."""
        places = self._places
        try:
            if len(places) == 1:
                (place,) = places
                places.install(place, places.connect(place), "loaded", first=True)
            else:
                self._open_side_by_side()
        except BaseException as error:
            for place in places:
                place.error = error
                state = "stopped" if places.closed else "failed"
                # Information: whoever loads it is given the error.
                place.enter(state, f"{type(error).__name__}: {error}", logging.INFO)
            raise
        self._recycling.start()

    def _open_side_by_side(self) -> None:
        places = self._places
        with ThreadPoolExecutor(len(places), thread_name_prefix=f"opexec-loading-{places.name}") as pool:
            starting = [pool.submit(places.connect, place) for place in places]
        links = [one.result() for one in starting if one.exception() is None]
        try:
            for one in starting:
                one.result()
            for place in places:
                places.install(place, links.pop(0), "loaded", first=True)
        finally:
            for link in links:  # another one could not be loaded, or the model was closed meanwhile
                link.close(OpexecError("another replica could not be loaded"), grace=0)

    @property
    def startup(self) -> Startup:
        """The time in which no worker can be called: the present one, or the last."""
        return self._places.startup

    @property
    def launch(self) -> Launch:
        return self._places.launch

    # Calls

    @contextlib.contextmanager
    def claimed(self, deadline: float | None) -> Iterator[Link]:
        """The worker for one call, which is under way as long as the context. Waits for one; raises why there is none, or CallTimeout."""
        link = self.claim(deadline)
        try:
            yield link
        finally:
            self.unclaim(link)

    def claim(self, deadline: float | None) -> Link:
        """The same, until `unclaim`: for where a context costs too much."""
        while True:
            link = self.try_claim()
            if link is not None:
                return link
            self.startup.wait(deadline)

    def try_claim(self) -> Link | None:
        """The worker for one call, after which `unclaim` must follow; None if there is none. Raises that cause where calls are not to wait for the next."""
        places = self._places
        with places.lock:
            if places.closed:
                raise places.is_closed()
            found = places.at_hand()
            if found is None:
                for link in places.dead():
                    self._restarts.lost(link)
                found = places.choose()
            if found is not None:
                found.claimed += 1
                return found
            if places.startup.under_way and self._supervision.while_restarting == "fail":
                for place in places:
                    if place.state == "restarting":
                        raise self._restarts.cause(place)
            return None

    def unclaim(self, link: Link) -> None:
        """The call has come back."""
        with self._places.lock:
            link.claimed -= 1

    def lost(self, link: Link) -> None:
        """A worker has died, or broke the protocol."""
        self._restarts.lost(link)

    def overdue(self, link: Link, call: Call) -> None:
        """A call's deadline has passed: the worker is killed if it makes no progress for the time of grace."""
        deadlines.watch(link, call, self._supervision.grace)

    # The end

    def drain(self, deadline: float | None) -> None:
        """Wait until no call is in flight, or for `deadline` (by `time.monotonic`)."""
        while any(link.connection.dead is None and link.connection.pending for link in self._places.links()):
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(_DRAIN_S)

    def shut(self) -> None:
        """Start no more workers: who waits for one is told."""
        places = self._places
        with places.lock:
            places.closed = True
            for place in places:
                place.stop_timer()
            self._recycling.stop()
        places.startup.fail(self._is_closed())
        for place in places:
            starting = place.starting
            if starting is not None:
                starting.kill()

    def end(self) -> None:
        """End all workers, side by side; back when they are gone."""
        links = self._places.links()
        if len(links) == 1:
            links[0].close(self._is_closed(), grace=1)
        else:
            side_by_side(lambda link: link.close(self._is_closed(), grace=1), links, "opexec-closing")
        for place in self._places:
            with place.replacing:
                if place.link is not None:
                    place.link.close(self._is_closed(), grace=1)
                place.enter("stopped", "close()")

    def _is_closed(self) -> ModelClosed:
        return self._places.is_closed()

    # What there is

    @property
    def ready(self) -> bool:
        return not self._places.closed and bool(self._places.serving())

    @property
    def first(self) -> Link | None:
        """A worker that can be called, the first there is."""
        return self._places.first

    def serving(self) -> list[Link]:
        """The workers that can be called now."""
        return self._places.serving()

    @property
    def is_copy(self) -> bool:
        """Whether this is a forked copy of the process that has the workers."""
        return self._places.is_copy

    def not_here(self) -> OpexecError:
        """What a forked copy is told."""
        return self._places.not_here()

    def infos(self) -> tuple[WorkerInfo, ...]:
        """One for each place, and for each worker that finishes its calls."""
        return self._places.infos()

    def counts(self) -> tuple[int, int, int]:
        """Calls sent, bytes copied in, bytes copied out, by all workers there have been."""
        return self._places.counts()

    @property
    def in_flight(self) -> int:
        """Calls that a worker has and has not answered."""
        return sum(len(link.connection.pending) for link in self._places.links())

    @property
    def restarts(self) -> int:
        """How often a worker was replaced."""
        return sum(place.restarts for place in self._places)

    @property
    def blocks_held(self) -> int:
        return sum(len(link.connection.outputs.leases) for link in self._places.links())

    def holders(self) -> str:
        """Who holds output blocks, for messages."""
        return ", ".join(link.connection.holders() for link in self._places.links()) or "there is no worker"


def _lost(own: weakref.ref[Replicas], link: Link) -> None:
    replicas = own()
    if replicas is not None:
        replicas.lost(link)


def _overdue(own: weakref.ref[Replicas], link: Link, call: Call) -> None:
    replicas = own()
    if replicas is not None:
        replicas.overdue(link, call)
