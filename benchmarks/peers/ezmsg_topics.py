"""ezmsg: a topic there and a topic back through its shared memory, in buffers as large as the messages."""

from __future__ import annotations

import asyncio
import os
from importlib import metadata
from typing import Any

import ezmsg.core

from benchmarks import processes
from benchmarks.contender import Call, Contender
from benchmarks.peers import server
from benchmarks.workloads import Array, Inputs, Workload

_ROOM, _BUFFERS = 2**16, 4


class EzmsgTopics(Contender):
    def setup(self, workload: Workload) -> Call:
        (port,) = server.free_ports(1)
        address = ("127.0.0.1", port)
        ready, started = os.pipe()
        begin, begun = os.pipe()

        async def serve() -> None:
            os.read(begin, 1)
            model = workload.load()
            async with ezmsg.core.GraphContext(address, auto_start=False) as context:
                requests = await context.subscriber("requests")
                replies = await context.publisher(
                    "replies", buf_size=workload.output_nbytes + _ROOM, num_buffers=_BUFFERS
                )
                os.write(started, b"!")
                while True:
                    async with requests.recv_zero_copy() as inputs:
                        await replies.broadcast(model(**inputs)["y"])

        # Before this process has threads of its own.
        self._partner = processes.fork(lambda: asyncio.run(serve()))
        loop = self._loop = asyncio.new_event_loop()

        async def open_() -> tuple[Any, Any]:
            self._context = await ezmsg.core.GraphContext(address, auto_start=True).__aenter__()
            requests = await self._context.publisher(
                "requests", buf_size=workload.nbytes + _ROOM, num_buffers=_BUFFERS
            )
            replies = await self._context.subscriber("replies")
            os.write(begun, b"!")
            await loop.run_in_executor(None, os.read, ready, 1)
            return requests, replies

        requests, replies = loop.run_until_complete(open_())
        for descriptor in (ready, started, begin, begun):
            os.close(descriptor)
        run = loop.run_until_complete

        async def exchange(inputs: Inputs) -> Array:
            await requests.broadcast(inputs)
            answer: Array = await replies.recv()
            return answer

        def call(inputs: Inputs) -> Array:
            return run(exchange(inputs))

        return call

    def facts(self) -> dict[str, str]:
        return {"ezmsg": metadata.version("ezmsg")}

    def close(self) -> None:
        processes.end(self._partner)
        self._loop.run_until_complete(self._context.__aexit__(None, None, None))
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
