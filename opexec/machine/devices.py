"""Which GPU a worker is given.

A worker sees one GPU or none: its ``CUDA_VISIBLE_DEVICES`` holds the GPU's UUID, which means the same whatever order CUDA or another
process counts in, and inside the worker that GPU is device 0.

A GPU that is split (MIG) stands for its parts, each with a UUID of its own: CUDA computes on a part, never on the whole, and lets a process
see one of them alone. https://docs.nvidia.com/datacenter/tesla/mig-user-guide/
"""

from __future__ import annotations

import contextlib
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

#: Several workers may compute on one GPU, and other programs beside them: jax and TensorFlow are to take of its memory what they need. By
#: themselves they take most of it when they first look at it, so that the next one finds none.
SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}

_LISTED = re.compile(r"GPU (\d+): (.*) \(UUID: (GPU-[0-9A-Fa-f-]+)\)\s*$")
# The parts of a GPU stand below it, indented. Drivers before R470 name a part by its GPU: MIG-GPU-<UUID>/<instance>/<instance>.
_LISTED_PART = re.compile(r"\s+(MIG .*?)\s+Device\s+\d+: \(UUID: (MIG-[0-9A-Za-z/-]+)\)\s*$")
_ASK_S = 30.0


@dataclass(frozen=True)
class Gpu:
    """One GPU, or a part of one that is split: the GPU's number by nvidia-smi (the order of the PCI bus), its own UUID and its name.

    `whole`: of a part, the UUID of the GPU that it is of.
    """

    index: int
    uuid: str
    name: str
    whole: str | None = None


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
    """All GPUs of the machine, one that is split as its parts, by nvidia-ml-py where that is installed, else by nvidia-smi.

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
                whole = Gpu(index, *_of_handle(pynvml, handle))
                parts = [_of_handle(pynvml, part) for part in _part_handles(pynvml, handle)]
                found += [Gpu(index, *part, whole.uuid) for part in parts] or [whole]
            return found
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise _absent(None, f"NVIDIA's management library says: {error}") from None


def _of_handle(pynvml: Any, handle: Any) -> tuple[str, str]:
    return _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle))


def _part_handles(pynvml: Any, handle: Any) -> list[Any]:
    handles = []
    try:
        for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            with contextlib.suppress(pynvml.NVMLError):  # nothing lies at this place
                handles.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place))
    except (AttributeError, pynvml.NVMLError):  # an older library, or a GPU that cannot be split
        pass
    return handles


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
    found: list[tuple[Gpu, list[Gpu]]] = []
    for line in answer.stdout.splitlines():
        if match := _LISTED.match(line):
            found.append((Gpu(int(match[1]), match[3], match[2]), []))
        elif found and (match := _LISTED_PART.match(line)):
            whole, parts = found[-1]
            parts.append(Gpu(whole.index, match[2], f"{whole.name} {match[1]}", whole.uuid))
    return [gpu for whole, parts in found for gpu in parts or [whole]]


def seen(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> list[Gpu]:
    """Those of `gpus` that a process with this environment may use, in its order: CUDA_VISIBLE_DEVICES as CUDA reads it.

    That is a list of numbers or of UUIDs, which may be cut short; what stands behind the first that fits no GPU does not count. A GPU that is
    split stands for all of its parts, of which CUDA by itself would take the first.
    """
    if VISIBLE not in environment:
        return list(gpus)
    chosen: list[Gpu] = []
    for entry in map(str.strip, environment[VISIBLE].split(",")):
        fits = _meant(gpus, entry)
        if not fits or not set(fits).isdisjoint(chosen):
            break
        chosen += fits
    return chosen


def _meant(gpus: Sequence[Gpu], entry: str) -> list[Gpu]:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES names, or the parts of the one that it names; empty if it fits none or several."""
    if entry.isdecimal():
        return [gpu for gpu in gpus if gpu.index == int(entry)]
    if entry.startswith("GPU-"):
        wholes = {gpu.whole or gpu.uuid for gpu in gpus}
        fits = {uuid for uuid in wholes if uuid.startswith(entry)}
        return [gpu for gpu in gpus if (gpu.whole or gpu.uuid) in fits] if len(fits) == 1 else []
    if not entry.startswith("MIG-"):
        return []
    exact = [gpu for gpu in gpus if gpu.uuid == entry]
    begun = exact or [gpu for gpu in gpus if gpu.uuid.startswith(entry)]
    return begun if len(begun) == 1 else []


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _absent(number: int | None, why: str) -> LoadError:
    what = "an NVIDIA GPU" if number is None else f"a GPU number {number}"
    return LoadError(
        f"device='cuda...' needs {what}; {why}. Use device='cpu', or a machine that has one.", stage="device"
    )
