"""Limits of control groups, read from trees as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from opexec.machine import control_groups
from opexec.machine.control_groups import MemoryLimit


class Tree:
    def __init__(self, folder: Path) -> None:
        self.mount = folder / "cgroup"
        self.membership = folder / "membership"

    def write(self, path: str, **files: str) -> None:
        (self.mount / path).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self.mount / path / name.replace("__", ".")).write_text(f"{text}\n")

    def memory(self) -> MemoryLimit | None:
        return control_groups.memory(self.membership, self.mount)

    def cores(self) -> float | None:
        return control_groups.cores(self.membership, self.mount)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_2_takes_the_tightest_of_the_groups_above(tree: Tree) -> None:
    tree.membership.write_text("0::/slice/service\n")
    tree.write("slice/service", memory__max="max", memory__current="10", cpu__max="max 100000")
    tree.write("slice", memory__max="1000", memory__current="400", cpu__max="150000 100000")
    tree.write("", cpu__max="400000 100000")
    assert tree.memory() == MemoryLimit(1000, 400)
    assert tree.cores() == 1.5


def test_version_1_has_a_tree_for_each_controller(tree: Tree) -> None:
    tree.membership.write_text("7:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    tree.write("memory/docker/abc", memory__limit_in_bytes="2000", memory__usage_in_bytes="1500")
    tree.write("memory", memory__limit_in_bytes=str(0x7FFFFFFFFFFFF000), memory__usage_in_bytes="9999")
    tree.write("cpu/docker/abc", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    tree.write("cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert tree.memory() == MemoryLimit(2000, 1500)
    assert tree.cores() == 0.5


def test_in_a_container_the_root_is_the_containers_own_group(tree: Tree) -> None:
    tree.membership.write_text("0::/../../host/path\n")
    tree.write("", memory__max="500", memory__current="100", cpu__max="200000 100000")
    assert tree.memory() == MemoryLimit(500, 100)
    assert tree.cores() == 2


def test_both_versions_at_once(tree: Tree) -> None:
    tree.membership.write_text("4:memory:/\n0::/user\n")
    tree.write("memory", memory__limit_in_bytes="3000", memory__usage_in_bytes="1")
    tree.write("unified/user", cpu__max="100000 100000")
    assert tree.memory() == MemoryLimit(3000, 1)
    assert tree.cores() == 1


def test_without_limits_there_are_none(tree: Tree) -> None:
    assert (tree.memory(), tree.cores()) == (None, None)  # no control groups at all
    tree.membership.write_text("0::/\n")
    assert (tree.memory(), tree.cores()) == (None, None)
    tree.write("", memory__max="max", memory__current="1", cpu__max="max 100000")
    assert (tree.memory(), tree.cores()) == (None, None)
