"""What runs a model, for reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Model


def runner_of(model: Model) -> dict[str, str]:
    """framework, framework_version, python, numpy (versions), and the interpreter's path, all of its first worker."""
    worker = model.workers[0]
    return {
        "framework": worker.framework,
        "framework_version": worker.framework_version,
        "python": worker.python,
        "numpy": worker.numpy,
        "interpreter": worker.interpreter,
    }
