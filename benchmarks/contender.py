"""The interface of everything that is measured, and the list of all that are."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.workloads import Inputs, Workload

Call = Callable[[Inputs], Any]


class Unavailable(Exception):
    """This contender cannot run here; the message says why and what would help."""


@dataclass(frozen=True)
class Options:
    """What a run asks of contenders: the Python version of opexec's worker, such as ``"3.13"``."""

    worker_python: str


class Contender(ABC):
    """One way to get a model called. `setup` opens it and returns the call, `close` ends all that it started.

    The result of a call needs to be valid only until the next one. That favours the peers: they are spared the copy
    that would make their results last, as those of opexec do.
    """

    answers: ClassVar[bool] = True
    """Whether a call gives what the model gives, so that the answer can be verified."""

    after_call: Callable[[Any], None] | None = None
    """Called, untimed, with the result of each call, where a call leaves something that must be ended."""

    def __init__(self, options: Options) -> None:
        self.options = options

    @abstractmethod
    def setup(self, workload: Workload) -> Call:
        """Open everything `workload` needs; the call that is returned takes inputs and gives the one output."""

    def inputs(self, workload: Workload) -> Inputs:
        """The inputs to call with; asked for after `setup`."""
        return workload.inputs()

    def wake(self) -> None:  # noqa: B027 - most have nothing to do
        """Measuring begins: a partner that spins may start to."""

    def park(self) -> None:  # noqa: B027
        """Measuring pauses: nothing may use the processor until `wake`."""

    def facts(self) -> dict[str, str]:
        """What the report should say about it: versions. Asked for after `setup`."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """End every process, thread and segment that `setup` made; call and results were dropped before."""


@dataclass(frozen=True)
class Entry:
    """Where a contender lives (``module:Class``), what tables call it, and what it is.

    `kind` is ``"floor"`` (a unit), ``"extra floor"`` (to compare with the units), ``"in process"``, ``"opexec"`` or ``"peer"``.
    """

    target: str
    title: str
    kind: str


REGISTRY: dict[str, Entry] = {
    "S": Entry("benchmarks.floors.spin:Spin", "S: spin ping-pong", "floor"),
    "F": Entry("benchmarks.floors.minimal:Minimal", "F: minimal round trip", "floor"),
    "E": Entry("benchmarks.floors.eventfd:Eventfd", "E: eventfd ping-pong", "floor"),
    "M": Entry("benchmarks.floors.copy:Copy", "M: np.copyto into shared memory", "floor"),
    "B": Entry("benchmarks.floors.bare_start:BareStart", "B: interpreter + framework import", "floor"),
    "spin-copy": Entry("benchmarks.floors.spin_copy:SpinCopy", "F without ever yielding", "extra floor"),
    "plain": Entry("benchmarks.calls.plain:Plain", "plain call", "in process"),
    "in-process": Entry("benchmarks.calls.in_process:InProcess", 'opexec, isolation="none"', "in process"),
    "opexec": Entry("benchmarks.calls.isolated:Isolated", "opexec", "opexec"),
    "opexec-empty": Entry("benchmarks.calls.isolated:FromEmpty", "opexec, input from empty", "opexec"),
    "opexec-slice": Entry("benchmarks.calls.isolated:SliceOfEmpty", "opexec, slice of empty", "opexec"),
    "opexec-load": Entry("benchmarks.calls.load:Load", "opexec.load", "opexec"),
    "pipe": Entry("benchmarks.peers.pipe_send:PipeSend", "Pipe, send", "peer"),
    "pipe-bytes": Entry("benchmarks.peers.pipe_bytes:PipeBytes", "Pipe, send_bytes", "peer"),
    "pipe-shm": Entry("benchmarks.peers.pipe_shared_memory:PipeSharedMemory", "Pipe + SharedMemory", "peer"),
    "executor": Entry("benchmarks.peers.process_pool:ProcessPool", "ProcessPoolExecutor", "peer"),
    "zmq": Entry("benchmarks.peers.zmq_pair:ZmqPair", "pyzmq ipc", "peer"),
}


def contender_class(target: str) -> type[Contender]:
    """The class at ``module:Class``. Raises Unavailable where a package that it needs is not installed."""
    module, _, attribute = target.partition(":")
    try:
        found: type[Contender] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise Unavailable(f"needs the package {error.name!r}, which is not installed") from error
    return found
