"""The places of one model's workers: which worker each has, which gets the next call, and whether calls wait for one.

While no worker can be called `startup` is under way, and calls wait for its end.

Locks: `Replica.replacing` while a place gets a worker, which takes as long as loading; under it, for moments, `lock`.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from ..connection.calls import Call
from ..errors import ModelClosed, OpexecError
from ..ipc.packer import Packer
from ..loading.launch import Launch
from ..loading.request import Specs
from ..memory import SharedMemory
from ..model import WorkerInfo
from . import watcher
from .link import Link
from .policies import Supervision
from .replica import Replica, leaving_info
from .startup import Startup


class Places:
    """See the module.

    `publish` is told which worker may be called without asking here; `adopt` the specs of each that is loaded; `lost` is called, in any
    thread, with a worker that has died, and `overdue` with a worker and a call of it, for which no thread waits, past its deadline.
    """

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
        lost: Callable[[Link], None],
        overdue: Callable[[Link, Call], None],
    ) -> None:
        self.name = name
        self.launch = launch
        self.startup = Startup(name)
        self.closed = False
        self.lock = threading.RLock()  # a garbage collection inside may end a watch
        #: Workers whose place another one has, and which finish their calls.
        self.leaving: list[Link] = []
        self._places = [Replica(name, supervision.policy) for _ in range(supervision.replicas)]
        self._counted = supervision.max_pending is not None
        self._packer = packer
        self._memory = memory
        self._wait = wait
        self._load_timeout = supervision.load_timeout
        self._publish = publish
        self._adopt = adopt
        self._lost = lost
        self._overdue = overdue
        self._last: Replica | None = None
        #: What former workers count for: calls, bytes copied in, bytes copied out.
        self._before = (0, 0, 0)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    # Workers come and go

    def connect(self, place: Replica, launch: Launch | None = None) -> Link:
        """Load a worker for `place`, which does not have it yet. Raises what `load` raises."""
        return place.connect(
            launch or self.launch,
            self._packer,
            self._memory,
            self._wait,
            self._load_timeout,
            lambda: self.closed,
        )

    def install(self, place: Replica, link: Link, reason: str, first: bool = False) -> Link | None:
        """Give `place` its worker, its `first` or another one; returns the one that had it, which gets no more calls."""
        lost, overdue, worker = self._lost, self._overdue, weakref.ref(link)

        def ended() -> None:
            link = worker()
            if link is not None:
                lost(link)

        def late(call: Call) -> None:
            link = worker()
            if link is not None:
                overdue(link, call)

        link.connection.overdue = late
        with self.lock:
            if not self.closed:
                self._adopt(link.specs)
                old, place.link = place.link, link
                place.restarts += not first
                if old is not None and not old.left:
                    old.left = True
                    old.since = time.time()
                    self.leaving.append(old)
                link.watch = watcher.when_dead(link.process.pidfd, ended)
                weakref.finalize(link, link.watch.cancel)
                place.error = None
                place.enter("ready", reason)
                self._packer.rouse = link.connection.rouse if len(self._places) == 1 else None
                self.show()
                self.startup.succeed(aside=True)
                return old
        link.close(self.is_closed(), grace=0)
        raise self.is_closed()

    def show(self) -> None:
        """Publish the worker that may be called without asking here, if there is one."""
        link = self._places[0].link
        alone = len(self._places) == 1 and not self._counted
        self._publish(link if alone and link is not None and link.serving else None)

    def place_of(self, link: Link) -> Replica | None:
        return next((one for one in self._places if one.link is link), None)

    def wait_anew(self) -> None:
        """After calls were told that no worker is to come: they wait again. Under the lock."""
        if self.startup.failure is not None:
            self.startup = Startup(self.name, "restarting")

    def wait_if_none(self) -> None:
        """Calls wait from now on, if there is no worker left for them. Under the lock."""
        if not self.startup.under_way and not any(one.link and one.link.serving for one in self._places):
            self.startup = Startup(self.name, "restarting")

    def give_up_if_none(self, error: BaseException) -> None:
        """Calls fail with `error` from now on, if no worker is left and none is to come. Under the lock."""
        if not any(
            one.state in ("restarting", "starting", "loading") or (one.link and one.link.serving)
            for one in self._places
        ):
            self.startup.fail(error, aside=True)

    def is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self.name!r} is closed; load it again to call it")

    # Calls

    def dead(self) -> list[Link]:
        """Workers of which it is known that they have ended, and that nobody has seen to."""
        return [
            place.link
            for place in self._places
            if place.link is not None and not place.link.left and place.link.connection.dead is not None
        ]

    def at_hand(self) -> Link | None:
        """The worker that was called last, if it has nothing to do: it is still awake. Under the lock."""
        link = None if self._last is None else self._last.link
        return None if link is None or link.load or not link.serving else link

    def choose(self) -> Link | None:
        """The worker with the least to do; None if none can be called. Under the lock."""
        found = None
        for place in self._places:
            link = place.link
            if link is not None and link.serving and (found is None or link.load < found.load):
                self._last, found = place, link
        return found

    # What there is

    @property
    def first(self) -> Link | None:
        """A worker that can be called, the first there is."""
        return next(iter(self.serving()), None)

    def serving(self) -> list[Link]:
        """The workers that can be called now."""
        links = [place.link for place in self._places]
        return [link for link in links if link is not None and link.serving]

    def links(self) -> list[Link]:
        """All workers, those that only finish their calls included."""
        with contextlib.nullcontext() if self.is_copy else self.lock:
            return [place.link for place in self._places if place.link is not None] + self.leaving

    @property
    def is_copy(self) -> bool:
        """Whether this is a forked copy of the process that has the workers."""
        return self.startup.is_copy

    def not_here(self) -> OpexecError:
        """What a forked copy is told. Takes no lock, which another thread of the original may have held."""
        for place in self._places:
            link = place.link
            if link is not None and link.connection.dead is not None:
                return link.connection.ended()
        return self.startup.of_a_copy()

    def infos(self) -> tuple[WorkerInfo, ...]:
        # In a forked copy another thread of the original may have held the lock.
        with contextlib.nullcontext() if self.is_copy else self.lock:
            return (
                *(place.info() for place in self._places),
                *(leaving_info(link) for link in self.leaving),
            )

    def note(self, link: Link) -> None:
        """Remember what a worker that goes counts for."""
        connection = link.connection
        with self.lock:
            calls, bytes_in, bytes_out = self._before
            self._before = (
                calls + connection.sent,
                bytes_in + connection.copied_in,
                bytes_out + connection.calls.copied_out,
            )
            connection.sent = connection.copied_in = connection.calls.copied_out = 0

    def counts(self) -> tuple[int, int, int]:
        """Calls sent, bytes copied in, bytes copied out, by all workers there have been."""
        with contextlib.nullcontext() if self.is_copy else self.lock:
            calls, bytes_in, bytes_out = self._before
            for link in self.links():
                connection = link.connection
                calls += connection.sent
                bytes_in += connection.copied_in
                bytes_out += connection.calls.copied_out
            return calls, bytes_in, bytes_out
