"""What a user decides about the supervision of a model: when a dead worker is replaced, how many there are, and how much may wait."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..memory import parse_size


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """When a worker that died, or whose replacement could not be loaded, is replaced.

    The first time at once; then after `backoff` seconds, twice as long each time, up to `max_backoff`; each wait is longer by a random part
    of up to `jitter` of it, so that many models that died of one cause do not load together. After `max_restarts` within `window`
    seconds it is left alone, and calls fail with the last cause until `Model.restart` is called. The seconds for which a worker was loading that
    then could not be loaded are not among these.
    """

    max_restarts: int = 5
    window: float = 60.0
    backoff: float = 0.5
    max_backoff: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        _check_count("max_restarts", self.max_restarts, 0)
        for name in ("window", "backoff", "max_backoff", "jitter"):
            value = getattr(self, name)
            if not _is_number(value) or value < 0 or (name == "window" and not value):
                raise ValueError(
                    f"{name} is {value!r}; expected a {'positive ' if name == 'window' else ''}number, not below zero"
                )


class Crashes:
    """The crashes of one worker's place, as a policy counts them."""

    def __init__(self, policy: RestartPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._times: deque[float] = deque()
        self._passed_over = 0.0

    def count(self) -> float | None:
        """Count one more; returns the seconds until the next start, or None where there have been too many."""
        policy, now = self._policy, self._clock() - self._passed_over
        self._times.append(now)
        while self._times[0] < now - policy.window:
            self._times.popleft()
        earlier = len(self._times) - 1
        if earlier >= policy.max_restarts:
            return None
        if not earlier:
            return 0.0
        wait = min(
            policy.backoff * 2.0 ** min(earlier - 1, 1000), policy.max_backoff
        )  # further is past a float
        return wait * (1 + policy.jitter * random.random())

    def pass_over(self, seconds: float) -> None:
        """These do not count for the window: a worker was loading, in vain. Else one that takes long to fail would be tried again for ever."""
        self._passed_over += seconds

    @property
    def recent(self) -> int:
        return len(self._times)

    def forgive(self) -> None:
        """Begin anew."""
        self._times.clear()


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """The arguments of `load` about supervision, which says what each means, checked."""

    restart: bool | RestartPolicy = True
    retries: int = 0
    grace: float | None = 5.0
    load_timeout: float | None = 600.0
    while_restarting: str = "wait"
    replicas: int = 1
    max_pending: int | None = None
    when_full: str = "error"
    max_calls: int | None = None
    max_memory: int | str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.restart, bool | RestartPolicy):
            raise TypeError(f"restart is {self.restart!r}; expected True, False or a RestartPolicy")
        _check_count("retries", self.retries, 0)
        _check_count("replicas", self.replicas, 1)
        for name in ("max_pending", "max_calls"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), 1)
        if self.grace is not None and (not _is_number(self.grace) or self.grace < 0):
            raise ValueError(
                f"grace is {self.grace!r}; expected a number of seconds, not below zero, or None for a worker that is never killed"
            )
        if self.load_timeout is not None:
            if not _is_number(self.load_timeout) or self.load_timeout <= 0:
                raise ValueError(
                    f"load_timeout is {self.load_timeout!r}; expected a positive number of seconds, or None for any time"
                )
            if self.load_timeout > threading.TIMEOUT_MAX:  # as `inf` is, where a file cannot say None
                object.__setattr__(self, "load_timeout", None)
        _check_choice("while_restarting", self.while_restarting, ("wait", "fail"))
        _check_choice("when_full", self.when_full, ("error", "wait"))
        if self.max_memory is not None:
            object.__setattr__(self, "max_memory", parse_size(self.max_memory))
        if self.retries and not self.restart:
            raise ValueError(
                f"retries is {self.retries} and restart is False; a call can be sent again only to a worker that is replaced"
            )

    @property
    def policy(self) -> RestartPolicy | None:
        """None where a dead worker is left alone."""
        if isinstance(self.restart, RestartPolicy):
            return self.restart
        return RestartPolicy() if self.restart else None

    @property
    def recycles(self) -> bool:
        """Whether workers are replaced for what they have done or hold."""
        return self.max_calls is not None or self.max_memory is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}")
