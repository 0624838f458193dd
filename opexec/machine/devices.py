"""Which GPU a worker is given.

A worker sees one GPU or none: its ``CUDA_VISIBLE_DEVICES`` holds the GPU's UUID, which means the same whatever order CUDA or another
process counts in, and inside the worker that GPU is device 0.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import LoadError

#: What decides which GPUs a process sees.
VISIBLE = "CUDA_VISIBLE_DEVICES"

_LISTED = re.compile(r"GPU (\d+): (.*) \(UUID: (GPU-[0-9A-Fa-f-]+)\)\s*$")
_ASK_S = 30.0


@dataclass(frozen=True)
class Gpu:
    """One GPU: its number by nvidia-smi (the order of the PCI bus), its UUID and its name."""

    index: int
    uuid: str
    name: str


def number_of(device: str) -> int | None:
    """N of ``"cuda:N"`` (``"cuda"`` is ``"cuda:0"``), None of ``"cpu"``. Raises ValueError for anything else."""
    if device == "cpu":
        return None
    match = re.fullmatch(r"cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(f"device is {device!r}; expected 'cpu', 'cuda' or 'cuda:N'")
    return int(match[1] or 0)


def choose(number: int) -> Gpu:
    """The GPU that is number `number` among those this process may use: all, or what its CUDA_VISIBLE_DEVICES says.

    Raises LoadError, with stage ``"device"``, if there is none.
    """
    gpus = seen(listed(), os.environ)
    if number >= len(gpus):
        there = ", ".join(f"cuda:{place} is {gpu.name}" for place, gpu in enumerate(gpus)) or "there is none"
        limited = f" ({VISIBLE} is {os.environ[VISIBLE]!r})" if VISIBLE in os.environ else ""
        raise _absent(number, f"{there}{limited}")
    return gpus[number]


def listed() -> list[Gpu]:
    """All GPUs of the machine, by nvidia-ml-py where that is installed, else by nvidia-smi.

    Raises LoadError, with stage ``"device"``, if neither can tell.
    """
    try:
        pynvml: Any = importlib.import_module("pynvml")  # of nvidia-ml-py
    except ImportError:
        return _by_nvidia_smi()
    try:
        pynvml.nvmlInit()
        try:
            found = []
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid, name = pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle)
                found.append(Gpu(index, _text(uuid), _text(name)))
            return found
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise _absent(None, f"NVIDIA's management library says: {error}") from None


def _by_nvidia_smi() -> list[Gpu]:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise _absent(None, "there is no nvidia-smi on PATH, and so no driver of NVIDIA's")
    try:
        answer = subprocess.run(
            [program, "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ASK_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _absent(None, f"{program} cannot be asked: {error}") from None
    if answer.returncode:
        raise _absent(None, f"{program} -L says: {(answer.stdout + answer.stderr).strip()}")
    # Between the GPUs stand the parts that some are split into (MIG), indented.
    return [Gpu(int(m[1]), m[3], m[2]) for m in map(_LISTED.match, answer.stdout.splitlines()) if m]


def seen(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Those of `gpus` that a process with this environment may use, in its order: CUDA_VISIBLE_DEVICES as CUDA reads it.

    That is a list of numbers or of UUIDs, which may be cut short; what stands behind the first that fits no GPU does not count.
    """
    if VISIBLE not in environment:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in map(str.strip, environment[VISIBLE].split(",")):
        if entry.isdecimal():
            fits = [gpu for gpu in gpus if gpu.index == int(entry)]
        else:
            fits = [gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
        if len(fits) != 1 or fits[0] in chosen:
            break
        chosen += fits
    return chosen


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _absent(number: int | None, why: str) -> LoadError:
    what = "an NVIDIA GPU" if number is None else f"a GPU number {number}"
    return LoadError(
        f"device='cuda...' needs {what}; {why}. Use device='cpu', or a machine that has one.", stage="device"
    )
