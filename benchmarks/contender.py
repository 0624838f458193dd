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


class Unsupported(Exception):
    """This contender runs here, but cannot do this workload; the message says why."""


Stream = tuple[Callable[[Inputs], Any], Callable[[Any], Any]]
"""Calls without waiting for the ones before: a function that sends inputs and gives a ticket, and one that takes the ticket and gives
the one output. Answers are taken in the order in which the inputs were sent."""


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

    def stream(self) -> Stream | None:
        """How to have many calls under way at once; None where that is not possible. Asked for after `setup`."""
        return None

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
    `requirements` are the packages of the environment that it has to itself; without any it runs where the run does.
    `heavy`: it takes seconds to open, so it is measured in few rounds and on few workloads (`grid.py`).
    `burns_core`: it keeps a core busy while nobody calls it, in the way it is used here.
    """

    target: str
    title: str
    kind: str
    requirements: tuple[str, ...] = ()
    heavy: bool = False
    burns_core: bool = False


_TORCH = "torch==2.13.0"  # a range could resolve to a build with CUDA, of several GB
_RAY = ("ray>=2.40",)
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
    "queue": Entry("benchmarks.peers.queues:Queue", "multiprocessing Queue", "peer"),
    "simple-queue": Entry("benchmarks.peers.queues:SimpleQueue", "multiprocessing SimpleQueue", "peer"),
    "executor": Entry("benchmarks.peers.process_pool:ProcessPool", "ProcessPoolExecutor", "peer"),
    "zmq": Entry("benchmarks.peers.zmq_pair:ZmqPair", "pyzmq ipc", "peer", ("pyzmq>=26",)),
    "loky": Entry("benchmarks.peers.loky_executor:LokyExecutor", "loky", "peer", ("loky>=3.4",)),
    "joblib": Entry("benchmarks.peers.joblib_parallel:JoblibParallel", "joblib", "peer", ("joblib>=1.4",)),
    "iceoryx2": Entry(
        "benchmarks.peers.iceoryx2_service:Polling",
        "iceoryx2, polling",
        "peer",
        ("iceoryx2>=0.7",),
        burns_core=True,
    ),
    "iceoryx2-events": Entry(
        "benchmarks.peers.iceoryx2_service:Events", "iceoryx2, events", "peer", ("iceoryx2>=0.7",)
    ),
    "torch": Entry(
        "benchmarks.peers.torch_queue:TorchQueue", "torch.multiprocessing", "peer", (_TORCH,), heavy=True
    ),
    "appose": Entry(
        "benchmarks.peers.appose_service:ApposeService", "appose", "peer", ("appose>=0.7",), heavy=True
    ),
    "pyisolate": Entry(
        "benchmarks.peers.pyisolate_extension:PyisolateExtension",
        "pyisolate",
        "peer",
        ("pyisolate>=0.10", _TORCH),
        heavy=True,
    ),
    "ezmsg": Entry("benchmarks.peers.ezmsg_topics:EzmsgTopics", "ezmsg", "peer", ("ezmsg>=3.6",), heavy=True),
    "ray": Entry("benchmarks.peers.ray_actor:RayActor", "Ray actor", "peer", _RAY, heavy=True),
    "ray-graph": Entry(
        "benchmarks.peers.ray_actor:RayGraph",
        "Ray compiled graph",
        "peer",
        _RAY,
        heavy=True,
        burns_core=True,
    ),
    "mosec": Entry("benchmarks.peers.mosec_server:MosecServer", "mosec", "peer", ("mosec>=0.9",), heavy=True),
    "litserve": Entry(
        "benchmarks.peers.litserve_server:LitServeServer", "LitServe", "peer", ("litserve>=0.2",), heavy=True
    ),
    "pytriton": Entry(
        "benchmarks.peers.pytriton_server:PyTritonServer",
        "PyTriton, gRPC + shared memory",
        "peer",
        ("nvidia-pytriton>=0.5",),
        heavy=True,
    ),
    "mlserver": Entry(
        "benchmarks.peers.mlserver_server:MlserverServer",
        "MLServer, gRPC",
        "peer",
        ("mlserver>=1.6", "uvloop<0.22"),
        heavy=True,
    ),
}


def contender_class(target: str) -> type[Contender]:
    """The class at ``module:Class``. Raises Unavailable where a package that it needs is not installed."""
    module, _, attribute = target.partition(":")
    try:
        found: type[Contender] = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise Unavailable(f"needs the package {error.name!r}, which is not installed") from error
    return found
