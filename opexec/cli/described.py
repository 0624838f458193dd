"""Environments, put into words and into JSON."""

from __future__ import annotations

from typing import Any

from .. import sizes
from ..environments.cleanup import Disk
from ..environments.store import Name, Stored


def names(environment: Stored) -> str:
    """Its names, or as much of its key as tells it apart in practice."""
    return ", ".join(environment.names) or environment.key[:8]


def wanted(request: dict[str, Any]) -> str:
    """The requirements, short."""
    parts = list(request.get("requirements", ()))
    parts += [f"{argument} {request[argument]}" for argument in ("lock", "conda") if argument in request]
    return ", ".join(parts) or "numpy"


def pairs(request: dict[str, Any]) -> list[tuple[str, str]]:
    """The arguments of a request and their values, in words."""

    def words(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key}={each}" for key, each in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [(argument.replace("_", " "), words(value)) for argument, value in request.items()]


def size(environment: Stored, disk: Disk | None) -> str:
    """What it takes: now, or else when it was built."""
    bytes = _bytes(environment, disk)
    return "" if bytes is None else sizes.text(bytes)


def _bytes(environment: Stored, disk: Disk | None) -> int | None:
    return disk.size(environment.key) if disk else environment.size


def as_json(environment: Stored, disk: Disk | None) -> dict[str, Any]:
    return {
        "names": list(environment.names),
        "key": environment.key,
        "complete": environment.complete,
        "python": environment.python,
        "base": environment.base and str(environment.base),
        "interpreter": str(environment.interpreter) if environment.complete else None,
        "packages": environment.packages,
        "request": environment.request,
        "passed_over": list(environment.passed_over),
        "size": _bytes(environment, disk),
        "freed_if_removed": disk.freed(environment.key) if disk else None,
        "created": environment.created and environment.created.isoformat(),
        "used": environment.used and environment.used.isoformat(),
    }


def gone_as_json(name: Name) -> dict[str, Any]:
    """Of a name whose environment is not in the cache at the moment: the same keys."""
    nothing = dict.fromkeys(("interpreter", "size", "freed_if_removed", "created", "used"))
    return {
        "names": [name.name],
        "key": name.key,
        "complete": False,
        "python": name.python,
        "base": str(name.base),
        "packages": {},
        "request": name.public_request,
        "passed_over": [],
        **nothing,
    }
