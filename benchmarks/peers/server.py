"""A peer that is a server: a program of its own that listens on this machine, started for a workload and ended with all it started."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict

from benchmarks.workloads import Workload

START_WITHIN_S = 90
END_WITHIN_S = 8
_WORKLOAD = "OPEXEC_BENCHMARK_WORKLOAD"
_PR_SET_PDEATHSIG = 1


class Server:
    """Runs ``python -m module``, or `command`, which finds its workload with `workload()` and listens on `port`."""

    def __init__(
        self,
        module: str,
        workload: Workload,
        port: int,
        variables: Mapping[str, str] | None = None,
        command: list[str] | None = None,
    ) -> None:
        parent = os.getpid()
        prctl = ctypes.CDLL(None).prctl

        def die_with_parent() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        environment = {**os.environ, _WORKLOAD: json.dumps(asdict(workload)), **(variables or {})}
        self.port = port
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", module, str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # so that all that it starts can be ended with it
            preexec_fn=die_with_parent,
        )

    def wait_until(self, ready: object) -> None:
        """Until `ready()` is true, where an OSError counts as not yet. Raises RuntimeError if the server ends before, or takes too long."""
        assert callable(ready)
        deadline = time.monotonic() + START_WITHIN_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self._process.returncode}")
            try:
                if ready():
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.end()
        raise RuntimeError(f"the server did not answer within {START_WITHIN_S} s")

    def end(self) -> None:
        """Ask it to end, and after a while make it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            try:
                self._process.wait(END_WITHIN_S)
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()


def workload() -> Workload:
    """The workload that the program was started for."""
    return Workload(**json.loads(os.environ[_WORKLOAD]))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Post:
    """Posts bytes over one connection that is kept open, without Nagle's delay."""

    def __init__(self, port: int, path: str, content_type: str) -> None:
        self._path = path
        self._headers = {"Content-Type": content_type}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(self, body: bytes | bytearray | memoryview) -> bytes:
        connection = self._connection
        connection.request("POST", self._path, body, self._headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise RuntimeError(f"the server answered {response.status}: {answer[:500]!r}")
        return answer

    def close(self) -> None:
        self._connection.close()


def answers(port: int, path: str) -> bool:
    """Whether a GET of `path` gives 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except http.client.HTTPException:
        return False
    finally:
        connection.close()
