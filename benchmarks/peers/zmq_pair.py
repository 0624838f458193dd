"""pyzmq: a pair of sockets over ipc, in the abstract namespace; big messages go in and out without a copy by pyzmq.

Of what was tried (REQ/REP, `recv_into`, larger socket buffers) this was the quickest.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import zmq

from benchmarks import processes
from benchmarks.contender import Call, Contender, Stream
from benchmarks.peers import packing
from benchmarks.workloads import DTYPE, Array, Inputs, Workload

COPY_BELOW = 64 * 1024
"""Below this a copy is cheaper than the bookkeeping of none: pyzmq's own default threshold."""
_numbers = itertools.count()


class ZmqPair(Contender):
    def setup(self, workload: Workload) -> Call:
        address = f"ipc://@opexec-benchmark-{os.getpid()}-{next(_numbers)}"
        single = packing.is_single(workload)
        copy_request = workload.nbytes < COPY_BELOW
        copy_reply = workload.output_nbytes < COPY_BELOW

        def serve() -> None:
            model = workload.load()
            socket = _pair(zmq.Context())
            socket.bind(address)
            while True:
                message = socket.recv(copy=copy_request)
                data = message if copy_request else message.buffer
                views = {"x": np.frombuffer(data, DTYPE)} if single else packing.views(workload, data)
                socket.send(model(**views)["y"], copy=copy_reply)

        self._partner = processes.fork(serve)
        self._context = zmq.Context()
        self._socket = _pair(self._context)
        self._socket.connect(address)
        send, receive = self._socket.send, self._socket.recv

        if single:

            def call(inputs: Inputs) -> Array:
                send(inputs["x"], copy=copy_request)
                reply = receive(copy=copy_reply)
                return np.frombuffer(reply if copy_reply else reply.buffer, DTYPE)

        else:
            request = bytearray(workload.nbytes)
            write = packing.writer(workload, request)

            def call(inputs: Inputs) -> Array:
                write(inputs)
                send(request, copy=True)
                return np.frombuffer(receive(), DTYPE)

        return call

    def stream(self) -> Stream:
        send, receive = self._socket.send, self._socket.recv
        return lambda inputs: send(inputs["x"]), lambda _: np.frombuffer(receive(), DTYPE)

    def facts(self) -> dict[str, str]:
        return {"pyzmq": zmq.__version__, "libzmq": zmq.zmq_version()}

    def close(self) -> None:
        processes.end(self._partner)
        self._context.destroy(linger=0)


def _pair(context: Any) -> Any:
    """A socket; untyped, as what pyzmq gives back depends on arguments that are no constants here."""
    socket = context.socket(zmq.PAIR)
    socket.setsockopt(zmq.LINGER, 0)
    return socket
