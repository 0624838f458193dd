"""The workers of one model: which of them gets the next call, and how each comes, is replaced and goes.

A worker's end is seen by whoever waits for an answer of it, else by the watcher. Either calls `lost`, and a thread sees to the rest: it buries the
worker, counts the crash, and starts the next one at once or has the watcher do so later. While no worker can be called `startup` is
under way, and calls wait for its end.

Locks: `Replica.replacing` while a place gets a worker, which takes as long as loading; under it, for moments, `_lock`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil

from . import watcher
from .calls import Call
from .errors import ModelClosed, OpexecError, WorkerDied
from .ipc import wire
from .ipc.packer import Packer
from .launch import Launch
from .memory import SharedMemory
from .model import WorkerInfo
from .policies import RestartPolicy, Supervision
from .replica import Link, Replica, leaving_info, tell
from .request import Specs
from .startup import Startup

#: How often a worker's calls and memory are looked at, in seconds, where they are limited; after a failed replacement, more rarely.
_LOOK_S = 0.25
_LOOK_AFTER_FAILURE_S = 10.0
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
        self.startup = Startup(name)
        self.launch = launch
        self.closed = False
        self._name = name
        self._supervision = supervision
        self._packer = packer
        self._memory = memory
        self._wait = wait
        self._publish = publish
        self._adopt = adopt
        self._policy = supervision.policy
        self._places = [Replica(name, self._policy) for _ in range(supervision.replicas)]
        #: Workers whose place another one has, and which finish their calls.
        self._leaving: list[Link] = []
        self._turn = 0
        self._lock = threading.RLock()  # a garbage collection inside may end a watch
        self._replacing = threading.Lock()
        #: What former workers count for: calls, bytes copied in, bytes copied out.
        self._before = (0, 0, 0)
        self._look: watcher.Watch | None = None

    # Loading, the first time

    def open(self) -> None:
        """Load all workers, side by side. Raises what the first that failed raised; the others are ended then."""
        places = self._places
        try:
            if len(places) == 1:
                self._install(places[0], self._connect(places[0]), "loaded")
            else:
                with ThreadPoolExecutor(
                    len(places), thread_name_prefix=f"opexec-loading-{self._name}"
                ) as pool:
                    links = [pool.submit(self._connect, place) for place in places]
                error = next((link.exception() for link in links if link.exception()), None)
                for place, link in zip(places, links, strict=True):
                    if link.exception() is None:
                        if error is None:
                            self._install(place, link.result(), "loaded")
                        else:
                            link.result().close(OpexecError("another replica could not be loaded"), grace=0)
                if error is not None:
                    raise error
        except BaseException as error:
            for place in places:
                place.error = error
                place.enter("stopped" if self.closed else "failed", f"{type(error).__name__}: {error}")
            raise
        if self._supervision.recycles:
            self._look_later(_LOOK_S)

    def _connect(self, place: Replica) -> Link:
        return place.connect(self.launch, self._packer, self._memory, self._wait, lambda: self.closed)

    def _install(self, place: Replica, link: Link, reason: str) -> Link | None:
        """Give `place` its worker; returns the one that had it, which gets no more calls."""
        own, worker = weakref.ref(self), weakref.ref(link)

        def ended() -> None:
            replicas, link = own(), worker()
            if replicas is not None and link is not None:
                replicas.lost(link)

        link.connection.overdue = lambda call: _overdue(own, worker, call)
        with self._lock:
            if not self.closed:
                self._adopt(link.specs)
                old, place.link = place.link, link
                if old is not None and not old.left:
                    old.left = True
                    old.since = time.time()
                    self._leaving.append(old)
                link.watch = watcher.when_dead(link.process.pidfd, ended)
                weakref.finalize(link, link.watch.cancel)
                place.error = None
                place.enter("ready", reason)
                self._packer.rouse = link.connection.rouse if len(self._places) == 1 else None
                self._show()
                self.startup.succeed()
                return old
        link.close(self._is_closed(), grace=0)
        raise self._is_closed()

    def _show(self) -> None:
        """Publish the worker that may be called without asking here, if there is one."""
        link = self._places[0].link
        alone = len(self._places) == 1 and self._supervision.max_pending is None
        self._publish(link if alone and link is not None and link.serving else None)

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
        """`claimed`; `unclaim` must follow."""
        while True:
            link = self.try_claim()
            if link is not None:
                return link
            self.startup.wait(deadline)

    def try_claim(self) -> Link | None:
        """The worker with the least to do; None if none can be called. Raises that cause where calls are not to wait for another one."""
        with self._lock:
            if self.closed:
                raise self._is_closed()
            places, self._turn = self._places, self._turn + 1
            found = None
            for step in range(len(places)):
                link = places[(self._turn + step) % len(places)].link
                if link is None or link.left:
                    continue
                if link.connection.dead is not None:
                    self.lost(link)
                elif found is None or link.load < found.load:
                    found = link
            if found is not None:
                found.claimed += 1
                return found
            if self.startup.under_way and self._supervision.while_restarting == "fail":
                for place in places:
                    if place.state == "restarting":
                        raise self._gone(place)
            return None

    def unclaim(self, link: Link) -> None:
        """The call has come back."""
        with self._lock:
            link.claimed -= 1

    def _gone(self, place: Replica) -> OpexecError:
        if isinstance(place.error, OpexecError):
            return copy.copy(place.error)
        return WorkerDied(
            f"the worker of model {self._name!r} has ended, and another one is being started",
            pid=place.pid or 0,
            exit_code=None,
            signal=None,
            stderr=(),
            stage="idle",
        )

    # Deaths

    def lost(self, link: Link) -> None:
        """A worker has died, or broke the protocol: it gets no more calls, and a thread sees to its end. Only the first time counts."""
        with self._lock:
            place = next((one for one in self._places if one.link is link), None)
            if place is None or link.left or self.closed:
                return
            link.left = True
            self._leave("restarting")
            place.enter("restarting" if self._policy else "stopped", "its worker has ended")
            self._show()
        threading.Thread(
            target=self._bury, args=(place, link), name=f"opexec-restarting-{self._name}", daemon=True
        ).start()

    def _leave(self, doing: str) -> None:
        """Calls wait from now on, if there is no worker left for them."""
        if not self.startup.under_way and not any(one.link and one.link.serving for one in self._places):
            self.startup = Startup(self._name, doing)

    def _bury(self, place: Replica, link: Link) -> None:
        error = link.connection.bury()
        link.close(error, grace=0)
        self._note(link)
        with place.replacing:
            if place.link is not link:  # `restart` was quicker
                return
            place.error = error
            self._start_again(place, error)

    def _start_again(self, place: Replica, error: BaseException) -> None:
        """Start the next worker of a place whose last one ended with `error`: now, later, or not. Under `replacing`."""
        while not self.closed:
            if place.crashes is None:
                self._give_up(place, "stopped", error)
                return
            delay = place.crashes.count()
            if delay is None:
                assert self._policy is not None
                self._give_up(
                    place, "failed", _too_often(self._name, place.crashes.recent, self._policy, error)
                )
                return
            if delay:
                with self._lock:
                    place.enter("restarting", f"the next start is in {delay:.3g} s, after: {error}")
                    place.timer = watcher.at(
                        time.monotonic() + delay, functools.partial(_resume, weakref.ref(self), place)
                    )
                return
            failure = self._attempt(place, f"after: {error}")
            if failure is None:
                return
            error = failure

    def _attempt(self, place: Replica, why: str) -> BaseException | None:
        """Start a worker for a place that has none; returns what it failed with. Under `replacing`."""
        with self._lock:
            place.enter("restarting", why)
        try:
            self._install(place, self._connect(place), f"restarted {why}")
        except BaseException as error:
            place.error = error
            return error
        place.restarts += 1
        return None

    def resume(self, place: Replica) -> None:
        """Start the worker whose start was put off."""
        with place.replacing:
            timer, place.timer = place.timer, None
            if timer is None or self.closed:  # `restart` was quicker
                return
            failure = self._attempt(place, f"after: {place.error}")
            if failure is not None:
                self._start_again(place, failure)

    def _give_up(self, place: Replica, state: str, error: BaseException) -> None:
        with self._lock:
            place.error = error
            place.enter(state, str(error))
            if not any(
                one.state in ("restarting", "starting", "loading") or (one.link and one.link.serving)
                for one in self._places
            ):
                self.startup.fail(error)

    # Deadlines

    def overdue(self, link: Link, call: Call) -> None:
        """A call's deadline has passed: the worker is killed if it makes no progress for the time of grace."""
        grace = self._supervision.grace
        if grace is not None and call.deadline is not None and call.id:
            self._look_at_overdue(link, call, call.deadline + grace)

    def _look_at_overdue(self, link: Link, call: Call, when: float) -> None:
        own, worker, late = weakref.ref(self), weakref.ref(link), weakref.ref(call)
        seen = link.connection.taken()

        def look() -> None:
            replicas, link, call = own(), worker(), late()
            if replicas is None or link is None or call is None:
                return
            connection = link.connection
            if connection.dead is not None or not connection.calls.was_abandoned(call):
                return
            taken = connection.taken()
            at_another = (
                taken is not None
                and taken[0] == wire.CALL
                and taken[1] != call.id
                and connection.calls.awaits(taken[1])
            )
            grace = replicas._supervision.grace or 0.0
            if taken != seen or at_another:
                # It gets on, or is at a call whose own caller still waits for it.
                replicas._look_at_overdue(link, call, time.monotonic() + max(grace, 0.01))
                return
            assert call.deadline is not None
            connection.condemn(
                f"a call ran past its deadline by {time.monotonic() - call.deadline:.3g} s (grace={grace:g})"
            )

        watcher.at(when, look)

    # Replacing

    @contextlib.contextmanager
    def replacing(self) -> Iterator[None]:
        """One replacement by the user at a time."""
        with self._replacing:
            if self.closed:
                raise self._is_closed()
            yield

    def restart(self) -> None:
        """See `Model.restart`. Under `replacing`."""
        for place in self._places:
            with place.replacing:
                if self.closed:
                    raise self._is_closed()
                place.stop_timer()
                if place.crashes is not None:
                    place.crashes.forgive()
                if len(self._places) == 1 or place.link is None or not place.link.serving:
                    self._replace_alone(place)
                else:
                    self._replace_beside(place, "restart()")

    def _replace_alone(self, place: Replica) -> None:
        """End the worker, which fails its calls, and start another."""
        old = place.link
        with self._lock:
            if old is not None and not old.left:
                old.left = True
            else:
                old = None
            if self.startup.failure is not None:
                self.startup = Startup(self._name, "restarting")
            self._leave("restarting")
            place.enter("restarting", "restart()")
            self._show()
        before = self._ended_by_restart(old) if old is not None else place.error
        if old is not None:
            assert isinstance(before, OpexecError)
            old.close(before, grace=0)
            self._note(old)
        failure = self._attempt(place, "by restart()")
        if failure is not None:
            if self.closed:
                raise self._is_closed() from None
            self._give_up(place, "failed", before or failure)
            raise failure

    def _ended_by_restart(self, link: Link) -> WorkerDied:
        return WorkerDied(
            f"worker {self._name!r} (pid {link.process.pid}) was ended by restart() with this call in flight",
            pid=link.process.pid,
            exit_code=None,
            signal=None,
            stderr=(),
            stage="call",
        )

    def _replace_beside(self, place: Replica, why: str) -> None:
        """Start another worker and give it the place; the one that had it finishes its calls."""
        link = self._connect(place)
        place.restarts += 1
        old = self._install(place, link, f"replaced: {why}")
        if old is not None:
            self._drain_aside(old, why)

    def _drain_aside(self, link: Link, why: str) -> threading.Thread:
        thread = threading.Thread(
            target=self._drain, args=(link, why), name=f"opexec-draining-{self._name}", daemon=True
        )
        thread.start()
        return thread

    def _drain(self, link: Link, why: str) -> None:
        """Let a worker that gets no more calls finish those it has, and end it."""
        tell(self._name, link.process.pid, "draining", why)
        error = WorkerDied(
            f"worker {self._name!r} (pid {link.process.pid}) was replaced: {why}",
            pid=link.process.pid,
            exit_code=None,
            signal=None,
            stderr=(),
            stage="idle",
        )
        while not self.closed and link.process.alive and not link.connection.retire(error):
            time.sleep(_DRAIN_S)
        if not link.process.alive:
            link.connection.bury()
        link.close(error if not self.closed else self._is_closed(), grace=1)
        self._note(link)
        with self._lock:
            if link in self._leaving:
                self._leaving.remove(link)
        tell(self._name, link.process.pid, "stopped", why)

    def swap(self, launch: Launch, check: Callable[[Specs], None], wait: bool) -> None:
        """Put workers of `launch` into all places; `check` may refuse their specs. Under `replacing`."""

        def connect(place: Replica) -> Link:
            return place.connect(launch, self._packer, self._memory, self._wait, lambda: self.closed)

        with contextlib.ExitStack() as held:
            for place in self._places:  # no restart of the old model meanwhile
                held.enter_context(place.replacing)
            with ThreadPoolExecutor(
                len(self._places), thread_name_prefix=f"opexec-swap-{self._name}"
            ) as pool:
                starting = [pool.submit(connect, place) for place in self._places]
            links = [one.result() for one in starting if one.exception() is None]
            try:
                for one in starting:
                    one.result()
                check(links[0].specs)
            except BaseException:
                for link in links:
                    link.close(OpexecError("it was not to be swapped in"), grace=0)
                raise
            self.launch = launch
            leaving = []
            for place, link in zip(self._places, links, strict=True):
                place.stop_timer()
                with self._lock:
                    if self.startup.failure is not None:
                        self.startup = Startup(self._name, "restarting")
                old = self._install(place, link, f"swap() to {launch.what}")
                place.restarts += 1
                if old is not None and old in self._leaving:
                    leaving.append(self._drain_aside(old, "swap()"))
        if wait:
            for thread in leaving:
                thread.join()

    # Limits of calls and memory

    def _look_later(self, seconds: float) -> None:
        own = weakref.ref(self)

        def look() -> None:
            replicas = own()
            if replicas is not None and not replicas.closed:
                replicas._look_at_limits()

        self._look = watcher.at(time.monotonic() + seconds, look)

    def _look_at_limits(self) -> None:
        for place in self._places:
            link = place.link
            if link is not None and link.serving:
                why = self._exceeded(link)
                if why:
                    threading.Thread(
                        target=self._recycle,
                        args=(place, link, why),
                        name=f"opexec-restarting-{self._name}",
                        daemon=True,
                    ).start()
                    return  # one after the other; the thread has the next look taken
        self._look_later(_LOOK_S)

    def _exceeded(self, link: Link) -> str:
        most = self._supervision
        if most.max_calls is not None and link.connection.sent >= most.max_calls:
            return f"it had {link.connection.sent} calls (max_calls={most.max_calls})"
        if most.max_memory is not None:
            with contextlib.suppress(psutil.Error):
                used = psutil.Process(link.process.pid).memory_info().rss
                if used > int(most.max_memory):
                    return f"it used {used} bytes of memory (max_memory={most.max_memory})"
        return ""

    def _recycle(self, place: Replica, link: Link, why: str) -> None:
        seconds = _LOOK_S
        try:
            with place.replacing:
                if place.link is link and link.serving and not self.closed:
                    self._replace_beside(place, why)
        except Exception as error:
            if not self.closed:
                seconds = _LOOK_AFTER_FAILURE_S
                tell(
                    self._name,
                    link.process.pid,
                    "ready",
                    f"it goes on, though {why}: no other could be loaded: {error}",
                )
        finally:
            if not self.closed:
                self._look_later(seconds)

    # The end

    def drain(self, deadline: float | None) -> None:
        """Wait until no call is in flight, or for `deadline` (by `time.monotonic`)."""
        while any(link.connection.dead is None and link.connection.pending for link in self._links()):
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(_DRAIN_S)

    def shut(self) -> None:
        """Start no more workers: who waits for one is told."""
        with self._lock:
            self.closed = True
            for place in self._places:
                place.stop_timer()
            if self._look is not None:
                self._look.cancel()
        self.startup.fail(self._is_closed())
        for place in self._places:
            starting = place.starting
            if starting is not None:
                starting.kill()

    def end(self) -> None:
        """End all workers, side by side; back when they are gone."""
        links = self._links()
        if len(links) == 1:
            links[0].close(self._is_closed(), grace=1)
        elif links:
            with ThreadPoolExecutor(len(links), thread_name_prefix="opexec-closing") as pool:
                list(pool.map(lambda link: link.close(self._is_closed(), grace=1), links))
        for place in self._places:
            with place.replacing:
                if place.link is not None:
                    place.link.close(self._is_closed(), grace=1)
                place.enter("stopped", "close()")

    def _is_closed(self) -> ModelClosed:
        return ModelClosed(f"model {self._name!r} is closed; load it again to call it")

    # What there is

    @property
    def being_replaced(self) -> bool:
        """Whether the user is replacing workers."""
        return self._replacing.locked()

    @property
    def first(self) -> Link | None:
        """A worker that can be called, the first there is."""
        links = [place.link for place in self._places]
        return next((link for link in links if link is not None and link.serving), None)

    def _links(self) -> list[Link]:
        with self._lock:
            return [place.link for place in self._places if place.link is not None] + self._leaving

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

    @property
    def ready(self) -> bool:
        return not self.closed and any(
            place.link is not None and place.link.serving for place in self._places
        )

    def serving(self) -> list[Link]:
        """The workers that can be called now."""
        with self._lock:
            links = [place.link for place in self._places]
        return [link for link in links if link is not None and link.serving]

    def infos(self) -> tuple[WorkerInfo, ...]:
        # In a forked copy another thread of the original may have held the lock.
        with contextlib.nullcontext() if self.is_copy else self._lock:
            return (
                *(place.info() for place in self._places),
                *(leaving_info(link) for link in self._leaving),
            )

    def _note(self, link: Link) -> None:
        """Remember what a worker that goes counts for."""
        connection = link.connection
        with self._lock:
            calls, bytes_in, bytes_out = self._before
            self._before = (
                calls + connection.sent,
                bytes_in + connection.copied_in,
                bytes_out + connection.calls.copied_out,
            )
            connection.sent = connection.copied_in = connection.calls.copied_out = 0

    def counts(self) -> tuple[int, int, int]:
        """Calls sent, bytes copied in, bytes copied out, by all workers there have been."""
        with self._lock:
            calls, bytes_in, bytes_out = self._before
            for link in self._links():
                connection = link.connection
                calls += connection.sent
                bytes_in += connection.copied_in
                bytes_out += connection.calls.copied_out
            return calls, bytes_in, bytes_out

    @property
    def in_flight(self) -> int:
        """Calls that a worker has and has not answered."""
        return sum(len(link.connection.pending) for link in self._links())

    @property
    def restarts(self) -> int:
        """How often a worker was replaced."""
        return sum(place.restarts for place in self._places)

    @property
    def blocks_held(self) -> int:
        return sum(len(link.connection.outputs.leases) for link in self._links())

    def holders(self) -> str:
        """Who holds output blocks, for messages."""
        return ", ".join(link.connection.holders() for link in self._links()) or "there is no worker"


def _overdue(own: weakref.ref[Replicas], worker: weakref.ref[Link], call: Call) -> None:
    replicas, link = own(), worker()
    if replicas is not None and link is not None:
        replicas.overdue(link, call)


def _resume(own: weakref.ref[Replicas], place: Replica) -> None:
    replicas = own()
    if replicas is not None:
        threading.Thread(target=replicas.resume, args=(place,), name="opexec-restarting", daemon=True).start()


def _too_often(name: str, count: int, policy: RestartPolicy, last: BaseException) -> BaseException:
    """The last cause, saying that it was one too many."""
    error = copy.copy(last)
    error.args = (
        f"model {name!r} is not restarted any more: {count} crashes within {policy.window:g} s, and max_restarts is {policy.max_restarts}. "
        f"The last: {last.args[0] if last.args else last}. Call restart() to try again",
        *error.args[1:],
    )
    return error
