"""The fence can be passed by many threads, one after the other, and Ctrl-C in it leaves it open."""

from __future__ import annotations

import importlib
import threading

import pytest

from opexec.ipc import fence as fence_module


@pytest.fixture(params=["x86_64", "aarch64"])
def make_fence(request, monkeypatch):
    """`make_fence` as it is on a machine of either kind of memory order."""
    monkeypatch.setattr("platform.machine", lambda: request.param)
    module = importlib.reload(fence_module)
    assert module.WEAKLY_ORDERED == (request.param == "aarch64")
    yield module.make_fence
    monkeypatch.undo()
    importlib.reload(fence_module)


def test_threads_pass_it(make_fence):
    fence = make_fence()
    passed = []

    def run():
        for _ in range(2000):
            fence()
        passed.append(1)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 3


def test_ctrl_c_leaves_it_open(make_fence, interruptions):
    for fence in interruptions(make_fence, lambda fence: fence()):
        thread = threading.Thread(target=fence, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "its lock was left held"
