"""torch.multiprocessing: tensors that lie in shared memory once and for all, sent to and fro through its queues.

So its documentation advises: what is in shared memory already is not copied by a queue, and is best sent back and used again. Tensors
are named by files: with descriptors, the default, a large one now and then does not arrive (EOFError in its resource sharer).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.multiprocessing

from benchmarks import processes
from benchmarks.contender import Call, Contender
from benchmarks.peers import packing
from benchmarks.workloads import DTYPE, Array, Inputs, Workload


class TorchQueue(Contender):
    def setup(self, workload: Workload) -> Call:
        torch.multiprocessing.set_sharing_strategy("file_system")
        context = torch.multiprocessing.get_context("fork")
        requests, replies = self._queues = context.SimpleQueue(), context.SimpleQueue()
        request = torch.empty(workload.nbytes // DTYPE.itemsize).share_memory_()
        reply = torch.empty(workload.output_nbytes // DTYPE.itemsize).share_memory_()

        def serve() -> None:
            model = workload.load()
            while True:
                given, answer = requests.get()
                views = packing.views(workload, memoryview(given.numpy()).cast("B"))
                np.copyto(answer.numpy(), model(**views)["y"])
                replies.put(answer)

        self._partner = processes.fork(serve)
        write = packing.writer(workload, memoryview(request.numpy()).cast("B"))

        def call(inputs: Inputs) -> Array:
            write(inputs)
            requests.put((request, reply))
            answer: Array = replies.get().numpy()
            return answer

        return call

    def facts(self) -> dict[str, str]:
        return {"torch": torch.__version__}

    def close(self) -> None:
        processes.end(self._partner)
        for queue in self._queues:
            queue.close()
