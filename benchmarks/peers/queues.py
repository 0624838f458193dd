"""multiprocessing.Queue, and SimpleQueue, which the documentation calls close to a locked Pipe: one there and one back; arrays are pickled."""

from __future__ import annotations

import multiprocessing
from typing import Any

from benchmarks import processes
from benchmarks.contender import Call, Contender, Stream
from benchmarks.workloads import Array, Inputs, Workload


class Queue(Contender):
    def setup(self, workload: Workload) -> Call:
        requests, replies = self._requests, self._replies = self._queue(), self._queue()

        def serve() -> None:
            model = workload.load()
            while True:
                replies.put(model(**requests.get())["y"])

        self._partner = processes.fork(serve)

        def call(inputs: Inputs) -> Array:
            requests.put(inputs)
            answer: Array = replies.get()
            return answer

        return call

    def stream(self) -> Stream:
        return self._requests.put, lambda _: self._replies.get()

    def close(self) -> None:
        processes.end(self._partner)
        for queue in (self._requests, self._replies):
            queue.close()

    def _queue(self) -> Any:
        return multiprocessing.get_context("fork").Queue()


class SimpleQueue(Queue):
    def stream(self) -> None:  # type: ignore[override]
        """None: without a thread that sends, both sides would in the end wait for room in their pipes."""
        return None

    def _queue(self) -> Any:
        return multiprocessing.get_context("fork").SimpleQueue()
