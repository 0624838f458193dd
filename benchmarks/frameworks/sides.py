"""The two processes that call a framework's models, as the run sees them: one in process, one through opexec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contender import Options
from benchmarks.driver_process import DriverProcess
from benchmarks.sampling import Plan, Samples
from opexec.machine import cores

_OPTIONS = Options(worker_python="")
_HERE = Path(__file__).resolve().parent


class Side(DriverProcess):
    """Holds any number of models by name."""

    def load(self, name: str, model: Mapping[str, Any], answer: Path) -> dict[str, Any]:
        """Load one; `answer` is where its answer in process is written, and read by the other side. Returns what there is to say of it.

        Raises ContenderFailed.
        """
        if self._process is None:
            self._start()
        facts: dict[str, Any] = self._ask(
            "open", name=name, model=self._prepared(model), answer=str(answer), **self._arguments()
        )["facts"]
        return facts

    def time(self, name: str, plan: Plan) -> Samples:
        """Nanoseconds of each call of the plan."""
        self._ask("measure", name=name, plan=asdict(plan))
        assert self._connection is not None
        return np.frombuffer(self._connection.recv_bytes(), np.int64)

    def _prepared(self, model: Mapping[str, Any]) -> dict[str, Any]:
        return dict(model)

    def _arguments(self) -> dict[str, Any]:
        return {}


class InProcessSide(Side):
    """In the framework's own interpreter, with the variables and options that `opexec.load` would give a worker."""

    def __init__(self, interpreter: Path, env_vars: Mapping[str, str], threads: int) -> None:
        super().__init__("in process", _OPTIONS, str(interpreter))
        self._env_vars = env_vars
        self._threads = threads

    def _program(self) -> list[str]:
        return ["-I", str(_HERE / "in_process.py")]

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        variables = cores.thread_variables(self._threads, environment)
        return {**environment, **variables, "CUDA_VISIBLE_DEVICES": "", **self._env_vars}

    def _prepared(self, model: Mapping[str, Any]) -> dict[str, Any]:
        # What computes with threads in a Python model is not its platform's affair.
        threads = {} if model["platform"] == "python" else {"threads": self._threads}
        return {**model, "options": {**model["options"], **threads}}


class IsolatedSide(Side):
    """In the calling interpreter, through opexec; its workers are in the framework's."""

    def __init__(self, interpreter: Path, env_vars: Mapping[str, str], threads: int) -> None:
        super().__init__("opexec", _OPTIONS)
        self._call_arguments = {
            "interpreter": str(interpreter),
            "env_vars": dict(env_vars),
            "threads": threads,
        }

    def _program(self) -> list[str]:
        return ["-m", "benchmarks.frameworks.isolated"]

    def _arguments(self) -> dict[str, Any]:
        return self._call_arguments
