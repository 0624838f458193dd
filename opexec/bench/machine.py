"""What a reader must know of the machine to read its figures, and how quick it is at the moment."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from ..machine import facts

_PACKAGES = ("numpy", "msgpack", "posix-ipc")


def machine_facts() -> dict[str, Any]:
    """Plain data: processor, cores, memory in bytes, kernel, load average, and the versions in the caller's interpreter."""
    kernel, cores = facts.kernel(), facts.cores()
    flags = (_cpu_field("flags") or "").split()
    return {
        "cpu": _cpu_field("model name") or platform.processor() or kernel.architecture,
        "architecture": kernel.architecture,
        "cores": cores.present,
        "cores_usable": cores.usable,
        "virtual": "hypervisor" in flags,
        "memory": psutil.virtual_memory().total,
        "kernel": kernel.release,
        "load_average": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "switch_interval": sys.getswitchinterval(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def pace() -> float:
    """Seconds of a fixed piece of Python: the median of five turns of about half a millisecond."""
    turns = []
    for _ in range(5):
        began = time.perf_counter()
        total = 0
        for number in range(10_000):
            total += number & 7
        turns.append(time.perf_counter() - began)
    return sorted(turns)[2]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_field(name: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), None
    )
