"""What a reader must know about the machine to read its figures."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_DISTRIBUTIONS = ("numpy", "msgpack", "posix-ipc", "psutil")


def machine_facts() -> dict[str, Any]:
    """Processor, memory, kernel, and the versions in the caller's interpreter."""
    return {
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores usable": len(os.sched_getaffinity(0)),
        "cores": os.cpu_count(),
        "virtual": _has_cpu_flag("hypervisor"),
        "memory GiB": round(psutil.virtual_memory().total / 2**30, 1),
        "system": _system(),
        "kernel": platform.release(),
        "load average before": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in _DISTRIBUTIONS if (version := _version(name))},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _has_cpu_flag(flag: str) -> bool:
    return flag in (_cpu_field("flags") or "").split()


def _cpu_field(name: str) -> str | None:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
