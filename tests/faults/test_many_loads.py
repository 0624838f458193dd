"""Load and close, again and again: descriptors, threads, maps, segments, processes and memory return to where they were.

100 times in CI; ``OPEXEC_TEST_LOADS`` says how often elsewhere.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import opexec
from tests.absent import in_ci
from tests.loaded import source

LOADS = int(os.environ.get("OPEXEC_TEST_LOADS", "100" if in_ci() else "25"))
WARM_UP = 5
# What malloc keeps, and a dict that grows once. A leaked segment is 1 MiB and more, a leaked worker object with its logs some 50 KiB.
KEPT_PER_LOAD = 20 << 10
KEPT = 1 << 20


def held() -> dict[str, Any]:
    """What this process has, by kind, once the threads that complete Futures have ended, as they do after a while."""
    for thread in threading.enumerate():
        if thread.name.startswith("opexec-collector"):
            thread.join()
    gc.collect()
    links = []
    with os.scandir("/proc/self/fd") as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another thread has closed it meanwhile
                links.append(os.readlink(entry.path))
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {
        "descriptors": sorted(re.sub(r"\d+", "N", link) for link in links if "/proc/" not in link),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "segments": [line for line in maps if "/dev/shm/opexec-" in line or "/memfd:opexec" in line],
        "files mapped": sorted({line.split(None, 5)[5] for line in maps if len(line.split(None, 5)) == 6}),
        "processes": [child.pid for child in psutil.Process().children(recursive=True)],
        "in /dev/shm": [name for name in os.listdir("/dev/shm") if name.startswith(f"opexec-{os.getpid()}-")],
    }


def use_once() -> None:
    with opexec.load(source("double")) as model:
        y = model.infer({"x": np.ones(100_000)})["y"]
        model.submit({"x": np.ones(3)}).result(60)
        block = model.empty("x", (1000,), np.float64)
        block[...] = 1
        model.infer({"x": block})
    assert y[0] == 2


def test_loads_and_closes_leave_nothing() -> None:
    for _ in range(WARM_UP):
        use_once()
    before, rss = held(), psutil.Process().memory_info().rss
    for _ in range(LOADS):
        use_once()
    after = held()
    grown = psutil.Process().memory_info().rss - rss
    assert after == before
    assert grown < KEPT + LOADS * KEPT_PER_LOAD, f"{grown} bytes after {LOADS} loads"
    assert before["processes"] == before["in /dev/shm"] == []
    print(f"{LOADS} loads: {grown / 1024:.0f} KiB more")
