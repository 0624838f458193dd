"""Both sides of a call in this thread, taking turns: nothing waits and nothing is woken, so each step can be timed and counted by itself.

The caller's side is that of a loaded model, the worker's side the server that workers run, over rings and segments as they always are.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import CodeType, FrameType, SimpleNamespace
from typing import Any, cast

import numpy as np

from opexec import Model
from opexec.connection import Connection
from opexec.errors import ModelClosed
from opexec.ipc.control import Control
from opexec.ipc.packer import Packer
from opexec.ipc.ring import Producer
from opexec.ipc.strategies import Adaptive
from opexec.isolated import IsolatedModel
from opexec.processes.worker import WorkerProcess
from opexec.supervision.link import Link
from opexec.workers.loop import Server

STEPS = (
    "look",
    "copy in",
    "enter",
    "send",
    "beside",
    "find",
    "run",
    "flatten",
    "copy out",
    "reply",
    "after",
    "wait",
    "deliver",
    "arrays",
)
LOOK, COPY_IN, ENTER, SEND, BESIDE, FIND, RUN, FLATTEN, COPY_OUT, REPLY, AFTER, WAIT, DELIVER, ARRAYS = STEPS
"""In the order in which they happen. From FIND to AFTER they are the worker's."""

UNHURRIED = (BESIDE, AFTER, WAIT)
"""What a side does once its record is published: in two processes the other side goes on meanwhile."""

_NEVER = 1 << 62
_clock = time.perf_counter_ns


@contextmanager
def opened(model: Model) -> Iterator[Turns]:
    """The model of a worker, loaded into this process too, and called there."""
    assert isinstance(model, IsolatedModel)
    ours, theirs = (Control(end) for end in socket.socketpair())
    pidfd = os.pidfd_open(os.getpid())
    process = SimpleNamespace(
        control=ours,
        pidfd=pidfd,
        name=model.name,
        pid=os.getpid(),
        is_copy=False,
        receive=lambda deadline: ours.receive(),
        close=lambda grace: None,
    )
    connection = Connection(cast(WorkerProcess, process), model._packer, model._memory, "adaptive")
    connection.next_timed = _NEVER
    try:
        # Two threads while it loads: each side waits for the other's messages.
        with ThreadPoolExecutor(1) as pool:
            serving = pool.submit(_loaded_server, theirs)
            connection.open(model.replicas.launch.message, None)
            server = serving.result()
        yield Turns(model, connection, server)
    finally:
        connection.close(ModelClosed("the benchmark is over"), 0)
        ours.close()
        theirs.close()
        os.close(pidfd)


def _loaded_server(control: Control) -> Server:
    message, fds = control.receive()
    server = Server(control, message, fds)
    server.load()
    return server


class Turns:
    """Calls, a step of one side after a step of the other."""

    def __init__(self, model: IsolatedModel, connection: Connection, server: Server) -> None:
        self._model = model
        self._link = cast(
            Link, SimpleNamespace(connection=connection, aligned=False, process=connection.process)
        )
        self._server = server
        self._marks: list[int] = []
        self._markers: set[CodeType] = set()

    def call(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What `Model.infer` does, with the worker's part in the middle."""
        model, link, step, mark = self._model, self._link, self._server.step, self._marks.append
        mark(_clock())
        names, values = tuple(inputs), [*inputs.values()]
        call, _ = model._prepare(link, names, values, 0, None)
        mark(_clock())
        woke = link.connection.send(call)
        mark(_clock())
        while step() is not None:  # there may be records of what the caller gives back before the call's
            pass
        mark(_clock())
        link.connection.wait(call, woke)
        mark(_clock())
        results = dict(zip(call.plan.names, model._views(link, call)))
        mark(_clock())
        return results

    def times(self, inputs: Mapping[str, Any], calls: int) -> dict[str, float]:
        """Nanoseconds of each step, medians over the calls. What looking at the clock takes is left out, what passing on a call to where
        the clock is looked at takes, a percent or two of all, is not."""
        marks, mark, rows = self._marks, self._marks.append, []
        with self._marked():
            for _ in range(calls):
                marks.clear()
                self.call(inputs)
                mark(_clock())  # a step of nothing
                rows.append(np.diff(marks))
        *steps, nothing = np.median(rows[1:], axis=0).tolist()
        return {step: max(took - nothing, 0.0) for step, took in zip(STEPS, steps, strict=True)}

    def counts(self, inputs: Mapping[str, Any]) -> dict[str, Counter[str]]:
        """How many functions each step calls: ``"Python"``, and ``"C"``."""
        found: dict[str, Counter[str]] = {step: Counter() for step in STEPS}
        marks = self._marks

        def count(frame: FrameType, event: str, function: Any) -> None:
            step = len(marks) - 1
            if 0 <= step < len(STEPS) and frame.f_code not in self._markers:
                if event == "call":
                    found[STEPS[step]]["Python"] += 1
                elif event == "c_call" and function is not _clock and function != marks.append:
                    found[STEPS[step]]["C"] += 1

        with self._marked():
            for _ in range(3):  # from then on the arrays of an answer are made before it comes
                self.call(inputs)
            marks.clear()
            sys.setprofile(count)
            try:
                self.call(inputs)
            finally:
                sys.setprofile(None)
        return found

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """The clock is looked at within the two sides' parts, too."""
        marked = [
            (Packer, "pack_again", True),
            (type(self._server.model), "run", True),
            (Producer, "publish", False),
            (Adaptive, "ready", False),
        ]
        # In the classes: an instance with attributes of its own would be slower to look anything up in.
        plain = [(owner, name, getattr(owner, name)) for owner, name, _ in marked]
        for owner, name, before in marked:
            setattr(owner, name, self._marking(getattr(owner, name), before))
        try:
            yield
        finally:
            for owner, name, function in plain:
                setattr(owner, name, function)

    def _marking(self, function: Callable[..., Any], before: bool) -> Callable[..., Any]:
        mark = self._marks.append

        def marking_both(*arguments: Any) -> Any:
            mark(_clock())
            result = function(*arguments)
            mark(_clock())
            return result

        def marking_end(*arguments: Any) -> Any:
            result = function(*arguments)
            mark(_clock())
            return result

        marking = marking_both if before else marking_end
        self._markers.add(marking.__code__)
        return marking
