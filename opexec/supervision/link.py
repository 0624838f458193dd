"""Link: a worker that has loaded the model, and what is only true of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ..connection import Connection
from ..connection.collector import Collector
from ..connection.loop_reader import LoopReader
from ..errors import OpexecError
from ..loading.request import Specs
from ..machine.process_memory import private_memory
from .watcher import Watch


class Link:
    """A worker that has loaded the model, and what is only true of it."""

    def __init__(self, connection: Connection, loaded: dict[str, Any], specs: Specs) -> None:
        self.connection = connection
        self.process = connection.process
        self.framework: str = loaded["framework"]
        self.version: str = loaded["version"]
        #: Inputs have to begin on 64 bytes (`Platform.aligned`).
        self.aligned: bool = loaded["aligned"]
        self.specs = specs
        self.collector = Collector(connection)
        self.loop_readers: dict[asyncio.AbstractEventLoop, LoopReader] = {}
        #: Calls that were given to this worker and have not come back, where several workers are chosen from.
        self.claimed = 0
        #: How many calls of attached clients it has begun, which `connection` knows nothing of: of a model that is shared, `sharing.tally` knows.
        self.client_calls: Callable[[], int] = lambda: 0
        #: It gets no more calls: it has died, or another one has its place.
        self.left = False
        self.since = time.time()
        #: Bytes of private memory that it held before it had served a call.
        self.held_at_first = private_memory(self.process.pid)
        #: How many calls it had been sent when its memory was looked at last, and when that was.
        self.weighed = (-1, 0.0)
        self.watch: Watch | None = None
        self._at: tuple[object, float] = (None, 0.0)

    @property
    def serving(self) -> bool:
        return not self.left and self.connection.dead is None

    @property
    def load(self) -> int:
        """How many calls are before the next one, those that nobody waits for any more included."""
        return max(self.claimed, self.connection.calls.unanswered)

    def busy_since(self) -> float | None:
        """Since when it is at its present call, as far as anybody has looked; None if it has none."""
        if not self.connection.pending:
            self._at = (None, 0.0)
            return None
        at = self.connection.taken()
        if self._at[1] == 0.0 or self._at[0] != at:
            self._at = (at, time.time())
        return self._at[1]

    def close(self, error: OpexecError, grace: float) -> None:
        """End the worker; calls in flight fail with `error`. Idempotent."""
        self.left = True
        if self.watch is not None:
            self.watch.cancel()
        self.connection.close(error, grace)

    def loop_reader(self) -> LoopReader:
        loop = asyncio.get_running_loop()
        reader = self.loop_readers.get(loop)
        if reader is None:
            for old in [one for one in list(self.loop_readers) if one.is_closed()]:
                former = self.loop_readers.pop(old, None)
                if former is not None:  # else another loop's thread was quicker
                    self.connection.role.remove_heir(former.heir)
            reader = self.loop_readers[loop] = LoopReader(self.connection, loop)
        return reader
