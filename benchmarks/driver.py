"""The process in which one contender lives; its parent, the run (`driver_process.py`), asks and gets answers.

A process each, so that no contender sees another's threads, sockets or memory, and so that one may need other
packages than the next. The garbage collector is off here, and the process is killed with its parent.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np

from benchmarks import answering, processes, sampling
from benchmarks.contender import Call, Contender, Options, Unavailable, Unsupported, contender_class
from benchmarks.workloads import Inputs, Workload


class Driver:
    """Holds the contender that is open, if any, and does what the parent asks."""

    def __init__(self) -> None:
        self._contender: Contender | None = None
        self._call: Call | None = None
        self._inputs: Inputs | None = None
        self._workload: Workload | None = None
        self._overhead_ns = sampling.overhead()

    def open(self, target: str, workload: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
        """Set up, and verify one answer."""
        gc.collect()
        wanted = Workload(**workload)
        made = contender_class(target)(Options(**options))
        try:
            self._call = made.setup(wanted)
        except Unsupported as reason:
            return {"unsupported": str(reason)}
        self._contender, self._workload = made, wanted
        self._inputs = made.inputs(wanted)
        facts = made.facts()
        made.wake()
        try:
            result = self._call(self._inputs)
            if made.answers:
                wanted.check(result, self._inputs)
            if made.after_call is not None:
                made.after_call(result)
        finally:
            made.park()
        return {"facts": facts}

    def measure(self, plan: dict[str, Any]) -> tuple[dict[str, Any], sampling.Samples]:
        """Samples with the cost of timing an empty call taken off."""
        assert self._contender is not None and self._call is not None and self._inputs is not None
        self._contender.wake()
        try:
            samples = sampling.sample(
                self._call, self._inputs, sampling.Plan(**plan), self._contender.after_call
            )
        finally:
            self._contender.park()
        return {"overhead_ns": self._overhead_ns}, np.maximum(samples - self._overhead_ns, 1)

    def stream(self, calls: int, window: int) -> dict[str, Any]:
        """Nanoseconds that `calls` calls took with at most `window` of them under way; None where it has no stream.

        The last answer is verified.
        """
        assert self._contender is not None and self._inputs is not None and self._workload is not None
        stream = self._contender.stream()
        if stream is None:
            return {"ns": None}
        self._contender.wake()
        try:
            nanoseconds, last = sampling.stream(*stream, self._inputs, calls, window)
        finally:
            self._contender.park()
        self._workload.check(last, self._inputs)
        return {"ns": nanoseconds}

    def close(self) -> dict[str, Any]:
        contender, self._contender = self._contender, None
        self._call = self._inputs = None
        gc.collect()
        if contender is not None:
            contender.close()
        return {}


def main(descriptor: int, parent: int) -> None:
    processes.die_with_parent(parent)
    gc.disable()
    driver = Driver()
    answering.serve(descriptor, driver, Unavailable)
    driver.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
