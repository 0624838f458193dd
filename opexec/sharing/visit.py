"""A connection to the owner of a shared model, for as long as that lives."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

import numpy as np

from ..errors import LoadError
from ..ipc import faults
from ..ipc.channel import close_all
from ..ipc.control import Control
from ..workers import handshake
from . import places

#: An owner that has no worker at the moment is asked again this often, in seconds.
_ASK_AGAIN_S = 0.05
#: An owner that does not answer for so long, in seconds, is looked at again: is it alive?
_ANSWER_S = 10.0


class Visit:
    """Made by `open`. Raises LoadError with stage ``"attach"`` wherever the owner is gone or refuses."""

    def __init__(self, name: str, control: Control, owner: int) -> None:
        self.name = name
        self.control = control
        self.owner = owner
        #: It has let a question go unanswered.
        self.silent = False

    @classmethod
    def open(cls, name: str, deadline: float | None = None) -> Visit:
        places.check_name(name)
        left = _ANSWER_S if deadline is None else max(deadline - time.monotonic(), 0.001)
        try:
            sock = places.connect(name, min(left, _ANSWER_S))
        except (FileNotFoundError, ConnectionRefusedError):
            raise LoadError(_nobody(name), stage="attach") from None
        except OSError as error:
            raise LoadError(
                f"cannot reach the owner of the shared model {name!r} at {places.path_of(name)}: {error}",
                stage="attach",
            ) from error
        owner, uid = places.peer(sock)
        if uid != os.geteuid():
            sock.close()
            raise LoadError(
                f"expected {places.path_of(name)} to be a socket of user {os.geteuid()}; user {uid} listens there",
                stage="attach",
            )
        return cls(name, Control(sock), owner)

    def describe(self, timeout: float = _ANSWER_S) -> dict[str, Any]:
        """What `Share.describe` tells."""
        told, fds = self._ask({"type": "describe"}, time.monotonic() + timeout)
        close_all(fds)
        return told

    def stats(self, timeout: float = _ANSWER_S) -> dict[str, Any]:
        """What `Share.stats` tells."""
        told, fds = self._ask({"type": "stats"}, time.monotonic() + timeout)
        close_all(fds)
        return told

    def introduce(self, deadline: float | None = None) -> tuple[dict[str, Any], socket.socket, int]:
        """What the owner tells of a worker, the way to it and its pidfd. Waits, until `deadline`, while the owner expects one."""
        hello = handshake.hello(np.__version__)
        while True:
            told, fds = self._ask({"type": "attach", "hello": hello}, deadline)
            if told["type"] == "attached" and len(fds) == 2:
                return told, socket.socket(fileno=fds[0]), fds[1]
            close_all(fds)
            if told["type"] == "refused":
                raise LoadError(
                    f"process {self.owner}, which shares model {self.name!r}, refuses this process: {told.get('why')}",
                    stage="attach",
                )
            if told["type"] != "later":
                raise self._odd(told)
            if deadline is not None and time.monotonic() > deadline:
                raise LoadError(
                    f"model {self.name!r} is shared by process {self.owner}, but {told.get('why')}; no worker was there in time",
                    stage="attach",
                )
            time.sleep(_ASK_AGAIN_S)

    def _ask(self, question: dict[str, Any], deadline: float | None) -> tuple[dict[str, Any], list[int]]:
        try:
            with contextlib.suppress(faults.PeerGone):  # it may have refused before it was asked
                self.control.send(question, timeout=_ANSWER_S)
            left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
            return self.control.receive(left)
        except faults.PeerGone:
            raise LoadError(
                f"process {self.owner} has ended, or shares model {self.name!r} no more. Start it again, and attach again",
                stage="attach",
            ) from None
        except TimeoutError:
            self.silent = True
            raise LoadError(
                f"process {self.owner}, which shares model {self.name!r}, did not answer in time",
                stage="attach",
            ) from None
        except faults.ProtocolError as error:
            raise LoadError(
                f"process {self.owner} does not speak as the owner of a model does: {error}", stage="attach"
            ) from error

    def _odd(self, told: dict[str, Any]) -> LoadError:
        return LoadError(
            f"process {self.owner} answers with a message of type {told['type']!r}; is it of another version of opexec?",
            stage="attach",
        )

    def close(self) -> None:
        self.control.close()


def _nobody(name: str) -> str:
    others = [other for other in places.names() if other != name]
    known = f" Shared are: {', '.join(map(repr, others[:20]))}." if others else " None is."
    return (
        f"nobody shares a model as {name!r} (expected a socket at {places.path_of(name)}).{known} Share it with "
        "`Model.share()`, `Supervisor.share()` or `opexec up`"
    )
