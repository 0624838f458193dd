"""How many threads a worker computes with, and on which cores.

Numerical libraries read the number of their threads from the environment when they are imported, so it is set before the worker starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: OpenMP, Intel's and OpenBLAS's kernels, numexpr, TensorFlow within one operation and across several, and XLA's pool, which jax computes in.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "NPROC",
)
_XLA_FLAGS = "XLA_FLAGS"
#: One thread: XLA hands no part of an operation to its pool.
_XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def thread_variables(threads: int | None, environment: Mapping[str, str]) -> dict[str, str]:
    """What a worker's environment must say for its libraries to compute with `threads` threads; `environment` is what it would be."""
    if threads is None:
        return {}
    variables = dict.fromkeys(_VARIABLES, str(threads))
    if threads == 1:
        variables[_XLA_FLAGS] = f"{environment.get(_XLA_FLAGS, '')} {_XLA_ONE_THREAD}".strip()
    return variables


def checked_cpus(cpus: Iterable[int] | None) -> tuple[int, ...] | None:
    """The numbers of the cores, each once, in order. Raises ValueError for anything else; whether there are such cores shows later."""
    if cpus is None:
        return None
    try:
        numbers = list(cpus)
    except TypeError:
        numbers = []
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"cpus is {cpus!r}; expected numbers of cores, as in [0, 1]")
    return tuple(sorted({*numbers}))
