"""How much shared memory a model may have: what is compared before any is reserved, and what a refusal says."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from opexec import memory
from opexec.ipc.arena import NoRoom
from opexec.ipc.segment import Segment
from opexec.memory import SharedMemory, parse_size

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (1, 1),
        (5 << 40, 5 << 40),
        ("512", 512),
        ("512B", 512),
        ("64kB", 64 << 10),
        ("64 KiB", 64 << 10),
        (" 512 MiB ", 512 << 20),
        ("512mb", 512 << 20),
        ("2G", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "bad", ["", "MiB", "-5", "5 X", "1 000", "0x10", "five", 0, -1, 1.5, True, None, "0", "0.0001", "inf"]
)
def test_what_is_no_size(bad: Any) -> None:
    with pytest.raises(ValueError, match="a size is .*; expected"):
        parse_size(bad)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine whose available memory and whose room in the control group are what the test says."""
    machine = SimpleNamespace(available=8 * GIB, group=None)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "_control_group_room", lambda: machine.group)
    return machine


def test_what_can_be_done_without_is_given_only_where_there_is_plenty(machine: SimpleNamespace) -> None:
    shared = SharedMemory(8 * MIB)
    segment = shared.create(2 * MIB, spare=True)
    with pytest.raises(NoRoom, match="6 MiB"):
        shared.create(2 * MIB, spare=True)
    other = shared.create(2 * MIB)
    for one in (segment, other):
        shared.forget(one)


def test_segments_count_until_they_are_forgotten() -> None:
    shared = SharedMemory(None)
    first, second = shared.create(1), shared.create(3 * MIB)
    assert (first.size, second.size) == (4096, 3 * MIB)
    assert first.id != second.id and shared.used == 3 * MIB + 4096
    shared.forget(first)
    shared.forget(first)
    assert shared.used == 3 * MIB and first.fd == -1
    first.map[0:4] = b"good"  # the memory itself stays for as long as it is mapped
    shared.forget(second)
    assert shared.used == 0


def test_the_limit_is_kept_to_the_page() -> None:
    shared = SharedMemory(MIB)
    first = shared.create(MIB - 4096)
    with pytest.raises(
        NoRoom,
        match=r"8 KiB of shared memory are needed, and shm_limit=1 MiB, 1020 KiB of it in use, leaves 4 KiB",
    ):
        shared.create(4097)
    second = shared.create(4096)
    with pytest.raises(NoRoom, match="leaves 0 bytes"):
        shared.create(1)
    shared.forget(first)
    assert shared.create(MIB - 4096).size == MIB - 4096
    shared.forget(second)


def test_growth_is_generous_only_where_there_is_plenty(machine: SimpleNamespace) -> None:
    assert SharedMemory(None).create(4096, room_to_grow=10 * MIB).size == 10 * MIB
    assert SharedMemory(20 * MIB).create(4096, room_to_grow=10 * MIB).size == 5 * MIB
    assert SharedMemory(20 * MIB).create(8 * MIB, room_to_grow=10 * MIB).size == 8 * MIB
    machine.available = 64 * MIB + 8 * MIB
    assert SharedMemory(None).create(4096, room_to_grow=10 * MIB).size == 2 * MIB


def test_the_machines_memory_is_a_limit(machine: SimpleNamespace) -> None:
    machine.available = 100 * MIB
    with pytest.raises(
        NoRoom, match="40 MiB of shared memory are needed, and the machine's available memory leaves 36 MiB"
    ):
        SharedMemory(None).create(40 * MIB)
    assert SharedMemory(None).create(30 * MIB).size == 30 * MIB
    machine.available = 10 * MIB
    with pytest.raises(NoRoom, match="available memory leaves 0 bytes"):
        SharedMemory(None).create(1)


def test_the_control_groups_memory_is_a_limit(machine: SimpleNamespace) -> None:
    machine.group = 100 * MIB
    with pytest.raises(NoRoom, match="and the control group's memory limit leaves 36 MiB"):
        SharedMemory(GIB).create(40 * MIB)
    assert SharedMemory(GIB).create(30 * MIB).size == 30 * MIB


def test_the_nearest_limit_is_named(machine: SimpleNamespace) -> None:
    machine.available, machine.group = 300 * MIB, 200 * MIB
    with pytest.raises(NoRoom, match="shm_limit=10 MiB"):
        SharedMemory(10 * MIB).create(50 * MIB)


def test_what_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(id: int, size: int) -> Segment:
        tried.append(size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shared = SharedMemory(None)
    with monkeypatch.context() as patched:
        patched.setattr(Segment, "create", refuse)
        with pytest.raises(
            NoRoom,
            match="4 KiB of shared memory are needed, and the system refuses them: No space left on device",
        ):
            shared.create(1, room_to_grow=MIB)
    assert tried == [MIB, 4096], "less was asked for before giving up"
    assert shared.used == 0 and shared.create(1).size == 4096


def control_groups(
    root: Path, text: str, limits: dict[str, tuple[str, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A /proc/self/cgroup of that text, and folders with (file of the limit, its content, usage) each."""
    (root / "cgroup").write_text(text)
    for folder, (name, limit, usage) in limits.items():
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(limit + "\n")
        used = "memory.current" if name == "memory.max" else "memory.usage_in_bytes"
        (path / used).write_text(usage + "\n")
    real = Path

    def moved(path: str) -> Path:
        if path == "/proc/self/cgroup":
            return real(root / "cgroup")
        return real(str(path).replace("/sys/fs/cgroup", str(root / "fs"), 1))

    monkeypatch.setattr(memory, "Path", moved)


def test_the_tightest_control_group_above_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {
        "fs": ("memory.max", "max", "5"),
        "fs/user": ("memory.max", str(1000 * MIB), str(900 * MIB)),
        "fs/user/job": ("memory.max", str(500 * MIB), str(10 * MIB)),
    }
    control_groups(tmp_path, "0::/user/job\n", limits, monkeypatch)
    assert memory._control_group_room() == 100 * MIB


def test_control_groups_of_the_first_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"fs/memory/docker/x": ("memory.limit_in_bytes", str(300 * MIB), str(50 * MIB))}
    control_groups(tmp_path, "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n", limits, monkeypatch)
    assert memory._control_group_room() == 250 * MIB


@pytest.mark.parametrize("text", ["", "0::/gone\n", "3:cpu:/x\n"])
def test_no_control_group_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    control_groups(tmp_path, text, {}, monkeypatch)
    assert memory._control_group_room() is None


def test_a_container_that_sees_its_own_group_as_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the path is that of the host, and the folder at the root holds the limit."""
    limits = {"fs": ("memory.max", str(100 * MIB), str(20 * MIB))}
    control_groups(tmp_path, "0::/../../kubepods/pod1\n", limits, monkeypatch)
    assert memory._control_group_room() == 80 * MIB
