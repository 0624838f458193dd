"""The loop of a process that measures: it answers its parent, `driver_process.py`, until that closes the connection.

Messages are JSON over an inherited socket. An answer that goes with samples is followed by these, int64. Needs only the standard
library and Python >= 3.7.
"""

from __future__ import annotations

import json
import multiprocessing.connection
import traceback


def serve(descriptor, handler, unavailable=()):
    """Call, for each message, the method of `handler` that it names with what it holds; it returns an answer, or answer and samples.

    Exceptions are answered too; those of the classes in `unavailable` say that something cannot run here.
    """
    connection = multiprocessing.connection.Connection(descriptor)
    while True:
        try:
            message = json.loads(connection.recv_bytes().decode())
        except EOFError:
            return
        ask = message.pop("do")
        samples = None
        try:
            answer = getattr(handler, ask)(**message)
            if isinstance(answer, tuple):
                answer, samples = answer
        except unavailable as reason:
            answer = {"unavailable": str(reason)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": "{}: {}".format(type(error).__name__, error)}
        connection.send_bytes(json.dumps(answer).encode())
        if samples is not None:
            connection.send_bytes(samples.tobytes())
