"""Which GPU `device="cuda:N"` means, and that without one nothing is started."""

from __future__ import annotations

import os
import stat
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import opexec
from opexec import LoadError
from opexec.machine.devices import Gpu, choose, listed, number_of, seen
from tests.gpus import needs_gpu
from tests.loaded import source

GPUS = [Gpu(0, "GPU-aaaa1111-0", "A100"), Gpu(1, "GPU-aaaa2222-0", "A100"), Gpu(2, "GPU-bbbb1111-0", "H100")]

#: What `nvidia-smi -L` prints on a machine with one plain GPU and one that is split (MIG).
LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5f1c4a2e-0d5e-6a9e-7b11-0f3a6d8c9b10)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-11f2a83c-6f5e-4bb5-9c41-7ad1b6e0c001)
  MIG 3g.20gb     Device  0: (UUID: MIG-6b2c1f6e-9ae0-5d1a-8a59-0b6b1f1c0a11)
  MIG 1g.5gb      Device  1: (UUID: MIG-6b2c9999-9ae0-5d1a-8a59-0b6b1f1c0a12)
"""
PARTS = ["MIG-6b2c1f6e-9ae0-5d1a-8a59-0b6b1f1c0a11", "MIG-6b2c9999-9ae0-5d1a-8a59-0b6b1f1c0a12"]

#: The same of a driver before R470.
LISTED_OF_OLD = """\
GPU 0: A100-SXM4-40GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)
  MIG 1g.5gb Device 0: (UUID: MIG-GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f/7/0)
  MIG 1g.5gb Device 1: (UUID: MIG-GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f/8/0)
GPU 1: A100-SXM4-40GB (UUID: GPU-11f2a83c-6f5e-4bb5-9c41-7ad1b6e0c001)
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, alone on PATH, that prints what the file `says` beside it holds."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$1" = -L ] && /bin/cat {tmp_path}/says; [ ! -e {tmp_path}/fails ]\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # as where it is not installed
    return tmp_path


@pytest.mark.parametrize(("device", "number"), [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_names(device: str, number: int | None) -> None:
    assert number_of(device) == number


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "", "CUDA", 0, None])
def test_names_of_nothing(device: object) -> None:
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda' or 'cuda:N'"):
        opexec.load(source("echo"), device=device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        (" 1 , 2", [1, 2]),
        ("GPU-bbbb1111-0,0", [2, 0]),
        ("GPU-b", [2]),
        ("GPU-a", []),  # which of the two?
        ("1,-1,2", [1]),
        ("1,1,2", [1]),
        ("0,7,1", [0]),
        ("", []),
        ("none", []),
    ],
)
def test_numbers_count_what_this_process_may_use(visible: str | None, numbers: list[int]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert [gpu.index for gpu in seen(GPUS, environment)] == numbers


def test_what_nvidia_smi_lists(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nvidia_smi / "says").write_text(LISTED)
    assert [(gpu.index, gpu.name) for gpu in listed()] == [
        (0, "NVIDIA H100 80GB HBM3"),
        (1, "NVIDIA A100-SXM4-40GB MIG 3g.20gb"),
        (1, "NVIDIA A100-SXM4-40GB MIG 1g.5gb"),
    ]
    assert [choose(number).uuid for number in (1, 2)] == PARTS
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose(0).index == 0
    with pytest.raises(
        LoadError, match="needs a GPU number 1; cuda:0 is NVIDIA H100.*CUDA_VISIBLE_DEVICES is '0'"
    ) as caught:
        choose(1)
    assert caught.value.stage == "device"


@pytest.mark.parametrize(
    ("visible", "parts"),
    [
        (PARTS[1], [1]),
        (f"{PARTS[1]},{PARTS[0]}", [1, 0]),
        ("MIG-6b2c9", [1]),
        ("MIG-6b2c", []),  # which of the two?
        ("MIG-none", []),
        ("1", [0, 1]),
        ("GPU-11f2", [0, 1]),
        (f"{PARTS[0]},1", [0]),
    ],
)
def test_the_parts_of_a_gpu_that_is_split(
    visible: str, parts: list[int], nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nvidia_smi / "says").write_text(LISTED)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in seen(listed(), os.environ)] == [PARTS[part] for part in parts]


def test_parts_that_an_old_driver_names_by_their_gpu(
    nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nvidia_smi / "says").write_text(LISTED_OF_OLD)
    whole = "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    assert [gpu.uuid for gpu in listed()] == [
        f"MIG-{whole}/7/0",
        f"MIG-{whole}/8/0",
        "GPU-11f2a83c-6f5e-4bb5-9c41-7ad1b6e0c001",
    ]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"MIG-{whole}/8/0")
    assert choose(0).uuid == f"MIG-{whole}/8/0"


def test_nvidias_library_tells_the_same(monkeypatch: pytest.MonkeyPatch, nvidia_smi: Path) -> None:
    (nvidia_smi / "says").write_text(LISTED)
    by_program = listed()

    class NVMLError(Exception):
        pass

    def parts_of(handle: str) -> int:
        if handle.startswith("GPU-5f"):
            raise NVMLError("Not Supported")
        return 7

    def part(handle: str, place: int) -> str:
        if place >= len(PARTS):
            raise NVMLError("Not Found")
        return PARTS[place]

    library = types.SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: (
            by_program[0].uuid if index == 0 else "GPU-11f2a83c-6f5e-4bb5-9c41-7ad1b6e0c001"
        ),
        nvmlDeviceGetUUID=lambda handle: handle.encode(),
        nvmlDeviceGetName=lambda handle: next((gpu.name for gpu in by_program if gpu.uuid == handle), "A100"),
        nvmlDeviceGetMaxMigDeviceCount=parts_of,
        nvmlDeviceGetMigDeviceHandleByIndex=part,
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert listed() == by_program


def test_a_worker_is_given_its_gpu_by_uuid(nvidia_smi: Path, tmp_path: Path) -> None:
    (nvidia_smi / "says").write_text(LISTED)
    (tmp_path / "seen.py").write_text(
        "import os\ndef factory():\n    return lambda: os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')\n"
    )
    with opexec.load(f"{tmp_path}/seen.py:factory", device="cuda:1") as model:
        assert model() == PARTS[0]
    with opexec.load(f"{tmp_path}/seen.py:factory") as model:
        assert model() == "unset", "a Python model may choose by itself"
    with opexec.load(
        f"{tmp_path}/seen.py:factory", device="cuda", env_vars={"CUDA_VISIBLE_DEVICES": "7"}
    ) as model:
        assert model() == "7", "what is given by hand wins"


def test_models_can_share_a_gpu(nvidia_smi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nvidia_smi / "says").write_text(LISTED)
    names = ("XLA_PYTHON_CLIENT_PREALLOCATE", "TF_FORCE_GPU_ALLOW_GROWTH")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "seen.py").write_text(
        f"import os\ndef factory():\n    return lambda: [os.environ.get(name, 'unset') for name in {names}]\n"
    )

    def found(**arguments: Any) -> list[str]:
        with opexec.load(f"{tmp_path}/seen.py:factory", **arguments) as model:
            return [str(one) for one in model()]

    assert found(device="cuda:0") == ["false", "true"]
    assert found() == ["unset", "unset"]
    assert found(device="cuda:0", env_vars={names[0]: "true"}) == ["true", "true"]
    monkeypatch.setenv(names[1], "false")
    assert found(device="cuda:0") == ["false", "false"]


@pytest.mark.parametrize(
    "words", ["no nvidia-smi on PATH", "-L says: NVIDIA-SMI has failed", "there is none"]
)
def test_without_a_gpu_nothing_is_started(nvidia_smi: Path, words: str) -> None:
    if "PATH" in words:
        (nvidia_smi / "nvidia-smi").unlink()
    elif "says" in words:
        (nvidia_smi / "says").write_text(
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
        )
        (nvidia_smi / "fails").touch()
    else:
        (nvidia_smi / "says").touch()
    for isolation in ("process", "none"):
        with pytest.raises(LoadError, match=f"needs.*{words}.*Use device='cpu'") as caught:
            opexec.load(source("exit_while_loading"), device="cuda:0", isolation=isolation, wait_ready=False)
        assert caught.value.stage == "device"


@needs_gpu
def test_in_the_worker_the_gpu_is_device_0_and_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(
        """
import ctypes

import numpy as np


def factory():
    def model():
        cuda = ctypes.CDLL("libcuda.so.1")
        count, device, uuid = ctypes.c_int(), ctypes.c_int(), (ctypes.c_ubyte * 16)()
        assert cuda.cuInit(0) == 0 and cuda.cuDeviceGetCount(ctypes.byref(count)) == 0
        assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
        ask = getattr(cuda, "cuDeviceGetUuid_v2", cuda.cuDeviceGetUuid)  # the older one knows no parts of GPUs
        assert ask(uuid, device) == 0
        return {"count": count.value, "uuid": np.array(bytes(uuid).hex(), object)}

    return model
"""
    )
    here = seen(listed(), os.environ)
    for number, gpu in enumerate(here):
        with opexec.load(f"{tmp_path}/driver.py:factory", device=f"cuda:{number}") as model:
            found = model()
            assert found["count"] == 1 and str(found["uuid"]) == gpu.uuid.partition("-")[2].replace("-", "")
    with opexec.load(
        f"{tmp_path}/driver.py:factory", device="cuda", env_vars={"CUDA_VISIBLE_DEVICES": ""}
    ) as model:
        with pytest.raises(opexec.ModelError):
            model()
