"""Custom ops of packages: shared libraries that register operators with the framework."""

from __future__ import annotations

import filecmp


def distinct(paths):
    """The paths without those of equal contents, of which the first stays: frameworks refuse to register an operator twice."""
    kept: list[str] = []
    for path in paths:
        if not any(filecmp.cmp(path, other, shallow=False) for other in kept):
            kept.append(path)
    return kept
