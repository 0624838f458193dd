"""iceoryx2: request and response through its shared memory, loaned and filled in place; both sides look without pause, or wait for events.

A response stays borrowed until the next call.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
from importlib import metadata
from typing import Any

import iceoryx2 as iox2
import numpy as np

from benchmarks import processes
from benchmarks.contender import Call, Contender
from benchmarks.peers import packing
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

_numbers = itertools.count()
_Bytes = iox2.Slice[ctypes.c_uint8]
_PARKED = 0


class Polling(Contender):
    """The server looks for requests without pause between `wake` and `park`, and blocks on an eventfd else."""

    def setup(self, workload: Workload) -> Call:
        iox2.set_log_level(iox2.LogLevel.Error)
        self._name = f"opexec/benchmark/{os.getpid()}/{next(_numbers)}"
        self._flags = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._bell = os.eventfd(0)
        ready, started = os.pipe()
        self._partner = processes.fork(lambda: self._serve(workload, started))
        os.close(started)
        if os.read(ready, 1) != b"!":
            raise RuntimeError("the iceoryx2 server did not start")
        os.close(ready)
        self._node = node = _node()
        service = _service(node, self._name)
        client = self._client = service.client_builder().initial_max_slice_len(workload.nbytes).create()
        self._open_caller_side(node)
        notify, wait = self._notify, self._wait
        nbytes = workload.nbytes
        single = packing.is_single(workload)
        copyto, frombuffer, concatenate = np.copyto, np.frombuffer, np.concatenate
        shape = next(iter(workload.input_shapes.values()))
        kept: list[Any] = []

        def call(inputs: Inputs) -> Array:
            if kept:
                kept.pop().delete()
            loan = client.loan_slice_uninit(nbytes)
            block = frombuffer(loan.payload().as_memory_view(), DTYPE)
            if single:
                copyto(block, inputs["x"])
            else:
                concatenate(list(inputs.values()), out=block.reshape(-1, *shape[1:]))
            pending = loan.assume_init().send()
            notify()
            while (response := pending.receive()) is None:
                wait()
            pending.delete()
            kept.append(response)
            return frombuffer(response.payload().as_memory_view(), DTYPE)

        return call

    def wake(self) -> None:
        self._flags[_PARKED] = 0
        os.eventfd_write(self._bell, 1)

    def park(self) -> None:
        self._flags[_PARKED] = 1

    def facts(self) -> dict[str, str]:
        return {"iceoryx2": metadata.version("iceoryx2")}

    def close(self) -> None:
        # By hand, as what a killed process leaves of a service stays until another node cleans it up.
        os.eventfd_write(self._bell, 2**32)
        os.waitpid(self._partner, 0)
        os.close(self._bell)

    def _serve(self, workload: Workload, started: int) -> None:
        node = _node()
        model = workload.load()
        builder = _service(node, self._name).server_builder()
        server = builder.initial_max_slice_len(workload.output_nbytes).create()
        self._open_server_side(node)
        os.write(started, b"!")
        output_nbytes = workload.output_nbytes
        copyto, frombuffer = np.copyto, np.frombuffer
        while self._idle():
            while (request := server.receive()) is not None:
                views = packing.views(workload, request.payload().as_memory_view())
                loan = request.loan_slice_uninit(output_nbytes)
                copyto(frombuffer(loan.payload().as_memory_view(), DTYPE), model(**views)["y"])
                loan.assume_init().send()
                self._notify()
                request.delete()

    def _idle(self) -> bool:
        """Between two looks for requests; False at the end."""
        if self._flags[_PARKED]:
            return os.eventfd_read(self._bell) < 2**32
        return True

    def _open_caller_side(self, node: Any) -> None:
        self._notify, self._wait = _nothing, _nothing

    def _open_server_side(self, node: Any) -> None:
        self._notify = _nothing


class Events(Polling):
    """Both sides sleep until the other notifies them."""

    def park(self) -> None:
        pass

    def wake(self) -> None:
        pass

    def close(self) -> None:
        self._flags[_PARKED] = 1
        self._notify()
        os.waitpid(self._partner, 0)
        os.close(self._bell)

    def _idle(self) -> bool:
        self._wait()
        return not self._flags[_PARKED]

    def _open_caller_side(self, node: Any) -> None:
        self._open_events(node, "client", "server")

    def _open_server_side(self, node: Any) -> None:
        self._open_events(node, "server", "client")

    def _open_events(self, node: Any, own: str, other: str) -> None:
        listener = _event(node, f"{self._name}/{own}").listener_builder().create()
        notifier = _event(node, f"{self._name}/{other}").notifier_builder().create()
        self._notify, self._wait = notifier.notify, listener.blocking_wait


def _nothing() -> None:
    pass


def _node() -> Any:
    return iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)


def _service(node: Any, name: str) -> Any:
    builder = node.service_builder(iox2.ServiceName.new(name)).request_response(_Bytes, _Bytes)
    return builder.open_or_create()


def _event(node: Any, name: str) -> Any:
    return node.service_builder(iox2.ServiceName.new(name)).event().open_or_create()
