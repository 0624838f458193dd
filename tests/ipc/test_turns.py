"""How many blocks take turns, by what Linux tells of the caches."""

import os

import pytest

from opexec.ipc.turns import blocks_in_turn, own_cache, turns

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    "size, count",
    [
        (0, 1),
        (64 * KIB - 1, 1),
        (64 * KIB, 39),
        (602_112, 5),
        (2 * MIB, 2),
        (4 * MIB, 2),
        (4 * MIB + 1, 1),
        (64 * MIB, 1),
    ],
)
def test_together_they_are_somewhat_larger_than_a_cores_own_cache(size, count):
    assert turns(size, MIB) == count
    if 1 < count < 39:
        assert count * size >= 2.4 * MIB


def test_none_take_turns_where_nothing_is_known():
    assert {turns(size, 0) for size in (0, 64 * KIB, 602_112, 64 * MIB)} == {1}


@pytest.fixture
def told(tmp_path):
    """Writes what Linux tells of the first usable core: threads, and its caches as ``(type, size, cpus)``."""
    cpu = tmp_path / "cpu{}".format(min(os.sched_getaffinity(0)))

    def tell(threads, *caches):
        (cpu / "topology").mkdir(parents=True)
        (cpu / "topology" / "thread_siblings_list").write_text(threads + "\n")
        (cpu / "cache").mkdir()
        (cpu / "cache" / "uevent").write_text("")
        for number, cache in enumerate(caches):
            folder = cpu / "cache" / "index{}".format(number)
            folder.mkdir()
            for name, text in zip(("type", "size", "shared_cpu_list"), cache):
                (folder / name).write_text(text + "\n")
        return str(tmp_path)

    return tell


FIRST = (("Data", "32K", "0"), ("Instruction", "8192K", "0"))


@pytest.mark.parametrize(
    "caches, own",
    [
        ([*FIRST, ("Unified", "1024K", "0"), ("Unified", "32768K", "0-7")], MIB),
        ([*FIRST, ("Unified", "1024K", "0"), ("Unified", "4096K", "0-7")], 0),  # too small for it
        ([*FIRST, ("Unified", "512K", "0-3")], 32 * KIB),  # turns of 77 KB
        ([*FIRST, ("Unified", "128K", "0-3")], 0),
        ([*FIRST, ("Unified", "1024K", "0")], 0),  # nothing shared is known
        ([], 0),
        ([*FIRST, ("Unified", "1M", "0"), ("Unified", "32M", "0-7")], 0),  # not as Linux writes it
    ],
)
def test_a_cores_own_cache_counts_if_a_much_larger_one_is_shared(told, caches, own):
    assert own_cache(told("0", *caches)) == own


def test_two_threads_of_one_core_share_its_own_cache(told):
    caches = ("Data", "48K", "0,64"), ("Unified", "2048K", "0,64"), ("Unified", "107520K", "0-127")
    assert own_cache(told("0,64", *caches)) == 2 * MIB


def test_where_linux_tells_nothing_no_blocks_take_turns(tmp_path):
    assert own_cache(str(tmp_path)) == 0


def test_this_machine():
    assert blocks_in_turn(64) == blocks_in_turn(1 << 30) == 1
    assert 1 <= blocks_in_turn(602_112) < 100
