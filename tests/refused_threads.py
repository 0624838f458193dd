"""A process that may start no more threads, for a while."""

from __future__ import annotations

import threading

import pytest


def refuse_twice(monkeypatch: pytest.MonkeyPatch, name: str) -> list[threading.Thread]:
    """Have the system refuse to start a thread of that name, as it does where there are too many, but no more than twice; returns those refused."""
    start = threading.Thread.start
    refused: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name and len(refused) < 2:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return refused
