"""opexec: models of mixed age and framework in one program, each in its own process and interpreter, called through shared memory.

The rooms (docs/design.md lists all of them):

- `model` and its two kinds, `isolated` and `inprocess`, are what a user calls; `calling` is one call, `batching` joins several.
- `loading` makes models, `supervisor` many of them together; `package`, `packages` and `packagers` read and write those that travel as one file.
- `environment` and `environments` find and build interpreters; `machine` knows what there is to run on.
- `processes` starts and ends one process, within limits; `connection` calls it; `supervision` replaces it; `sharing` lets other programs call it.
- `metrics`, `bench` and `comparison` tell how models do; `dropin` and `neuropod` are other libraries' faces; `cli` is the command.
- `workers` runs in the foreign interpreter, `ipc` on both sides.
"""

from .batching.policy import BatchPolicy
from .environment import Environment
from .errors import (
    BuildError,
    CallTimeout,
    FrameworkNotFound,
    LoadError,
    ModelClosed,
    ModelError,
    OpexecError,
    OutOfSharedMemory,
    Overloaded,
    PackageError,
    ProtocolError,
    SpecError,
    WorkerDied,
)
from .ipc import VERSION as __version__
from .loading.load import load
from .model import BatchStats, Model, ModelStats, WorkerInfo
from .processes.sandbox import Sandbox
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
    "FrameworkNotFound",
    "LoadError",
    "Model",
    "ModelClosed",
    "ModelError",
    "ModelStats",
    "OpexecError",
    "OutOfSharedMemory",
    "Overloaded",
    "PackageError",
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
