"""opexec: models of mixed age and framework in one program, each in its own process and interpreter, called through shared memory.

The rooms: `model` and its two kinds (`isolated`, `inprocess`) are what a user calls; `loading` makes them, and `supervisor` many of them
together; `environment` and what it builds on find and build interpreters; `worker` and `connection` run and call one process. `workers` runs in the foreign interpreter, `ipc`
on both sides.
"""

from .batching.policy import BatchPolicy
from .environment import Environment
from .errors import (
    BuildError,
    CallTimeout,
    LoadError,
    ModelClosed,
    ModelError,
    OpexecError,
    OutOfSharedMemory,
    Overloaded,
    ProtocolError,
    SpecError,
    WorkerDied,
)
from .ipc import VERSION as __version__
from .loading import load
from .model import BatchStats, Model, ModelStats, WorkerInfo
from .sandbox import Sandbox
from .sharing.client import attach
from .spec import TensorSpec
from .supervision.policies import RestartPolicy
from .supervisor import Supervisor

__all__ = [
    "BatchPolicy",
    "BatchStats",
    "BuildError",
    "CallTimeout",
    "Environment",
    "LoadError",
    "Model",
    "ModelClosed",
    "ModelError",
    "ModelStats",
    "OpexecError",
    "OutOfSharedMemory",
    "Overloaded",
    "ProtocolError",
    "RestartPolicy",
    "Sandbox",
    "SpecError",
    "Supervisor",
    "TensorSpec",
    "WorkerDied",
    "WorkerInfo",
    "__version__",
    "attach",
    "load",
]
