"""A block counts as given back when nothing derived from its arrays lives any more: never before, and exactly once."""

from __future__ import annotations

import ctypes
import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from opexec.ipc.lease import Leases

PLACE = 3 << 40 | 128


@pytest.fixture
def map(segments):
    segment = segments(4096)
    segment.map[:] = bytes(index % 251 for index in range(4096))
    return segment.map


def over(map, dtype="f4", shape=(4, 6), offset=128):
    return np.ndarray(shape, dtype, map, offset)


class Interface:
    """What a foreign library keeps: the array, and an interface made from it."""

    def __init__(self, array):
        self._array = array
        self.__array_interface__ = array.__array_interface__


def advanced(iterator):
    next(iterator)
    return iterator


# What somebody may make of an array and keep; the array itself is dropped.
DERIVED = {
    "slice": lambda a: a[1:3],
    "step": lambda a: a[::-1, ::2],
    "row": lambda a: a[2],
    "column": lambda a: a[:, 1],
    "new axis": lambda a: a[None, ..., None],
    "empty slice": lambda a: a[4:],
    "T": lambda a: a.T,
    "swapaxes": lambda a: a.swapaxes(0, 1),
    "reshape": lambda a: a.reshape(3, 8),
    "ravel": lambda a: a.ravel(),
    "squeeze": lambda a: a[:1].squeeze(),
    "view": lambda a: a.view(),
    "view as another dtype": lambda a: a.view("i2"),
    "view of a view of a view": lambda a: a.view().reshape(-1)[3:].view("u1")[5:9],
    "view as a subclass": lambda a: a.view(np.recarray),
    "masked array": lambda a: np.ma.masked_array(a, a > 0),
    "diagonal": lambda a: a.diagonal(),
    "real": lambda a: a.view("c8").real,
    "imag": lambda a: a.view("c8").imag,
    "field": lambda a: a.view([("x", "i2"), ("y", "u2")])["y"],
    "broadcast": lambda a: np.broadcast_to(a, (2, 4, 6)),
    "broadcast iterator": lambda a: advanced(np.broadcast(a, np.zeros(6))),
    "as_strided": lambda a: as_strided(a, (3,), (4,)),
    "sliding windows": lambda a: sliding_window_view(a, 2, 1),
    "asarray": lambda a: np.asarray(a),
    "split": lambda a: np.split(a, 2)[1],
    "list of rows": lambda a: list(a),
    "iterator": lambda a: advanced(iter(a)),
    "flat": lambda a: a.flat,
    "nditer": lambda a: np.nditer(a),
    "memoryview": lambda a: memoryview(a),
    "part of a memoryview": lambda a: memoryview(a).cast("B")[8:16],
    "frombuffer of a memoryview": lambda a: np.frombuffer(memoryview(a), "i4"),
    "ctypes": lambda a: a.ctypes,
    "ctypes pointer": lambda a: a.ctypes.data_as(ctypes.c_void_p),
    "ctypes array": lambda a: np.ctypeslib.as_ctypes(a),
    "array interface": lambda a: np.asarray(Interface(a)),
    "bound method": lambda a: a.sum,
    "closure": lambda a: lambda: a[0],
    "cycle": lambda a: [a].append,
}
if hasattr(np, "from_dlpack"):
    DERIVED["dlpack import"] = lambda a: np.from_dlpack(a)
    DERIVED["dlpack capsule"] = lambda a: a.__dlpack__()


@pytest.mark.parametrize("how", sorted(DERIVED))
def test_a_block_is_lent_as_long_as_anything_derived_lives(how, map):
    leases = Leases()
    array = over(map)
    leases.lend(PLACE, [array])
    derived = DERIVED[how](array)
    del array
    gc.collect()
    assert leases.collect() == [] and len(leases) == 1
    del derived
    gc.collect()
    assert leases.collect() == [PLACE] and len(leases) == 0
    assert leases.collect() == []


@pytest.mark.parametrize("how", ["row", "T", "view of a view of a view", "memoryview"])
def test_chains_of_views_hold_to_the_last(how, map):
    leases = Leases()
    array = over(map)
    leases.lend(PLACE, [array])
    derived = DERIVED[how](array)
    del array
    for _ in range(5):
        derived = np.asarray(derived)[...]
        gc.collect()
        assert leases.collect() == []
    del derived
    assert leases.collect() == [PLACE]


def test_the_same_values_are_there_while_it_is_lent(map):
    leases = Leases()
    array = over(map, "u1", (64,))
    leases.lend(PLACE, [array])
    part = array[10:20]
    expected = bytes(range(138, 148))
    del array
    assert leases.collect() == [] and part.tobytes() == expected


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_a_block_of_several_arrays_is_lent_until_all_are_gone(order, sliced):
    memory = bytearray(4096)
    leases = Leases()
    arrays = {index: np.ndarray((8,), "f8", memory, 64 * index) for index in range(5)}
    leases.lend(PLACE, list(arrays.values()))
    for index in sliced:
        arrays[index] = arrays[index][2:]
    for index in order[:-1]:
        del arrays[index]
        assert leases.collect() == []
    arrays.clear()
    assert leases.collect() == [PLACE] and leases.collect() == []


def test_arrays_that_go_between_two_collections_count_once():
    leases = Leases()
    arrays = [np.zeros(3) for _ in range(5)]
    leases.lend(PLACE, arrays)
    arrays.clear()
    assert leases.collect() == [PLACE] and leases.collect() == []


def test_a_place_can_be_lent_again():
    leases = Leases()
    for _ in range(3):
        for arrays in ([np.zeros(2)], [np.zeros(2), np.zeros(3)], []):
            leases.lend(PLACE, arrays)
            assert leases.collect() == ([] if arrays else [PLACE])
            if arrays:
                arrays.clear()
                assert leases.collect() == [PLACE]
    assert len(leases) == 0 and not leases.ended


def test_a_block_without_arrays_or_wanted_by_nobody_comes_back_at_once():
    leases = Leases()
    leases.lend(PLACE, [])
    leases.forfeit(PLACE + 64)
    assert leases.ended
    assert leases.collect() == [PLACE, PLACE + 64]
    assert len(leases) == 0 and not leases.ended


@given(st.lists(st.integers(0, 4), max_size=40))
def test_each_lease_ends_exactly_once(steps):
    """Step k lends the block k to a new array, or drops the array that has it."""
    leases = Leases()
    held, came, dropped = {}, [], []
    for block in steps:
        if block in held:
            del held[block]
            dropped.append(block)
        else:
            if block in dropped:  # as a worker does: the block is lent again only when it has come back
                came += leases.collect()
                dropped = []
            held[block] = np.zeros(2)
            leases.lend(block, [held[block]])
        assert len(leases) == len(held)
    held.clear()
    came += leases.collect()
    lent = sum(1 for index, block in enumerate(steps) if steps[:index].count(block) % 2 == 0)
    assert len(came) == lent and not leases.ended


def test_arrays_dropped_in_other_threads_and_by_the_collector_of_cycles():
    leases = Leases()
    rounds, came = 300, []

    def hold(first):
        for place in range(first, first + rounds):
            array = np.zeros(2)
            cycle = [array]
            cycle.append(cycle)
            leases.lend(place, [array])
            del array, cycle

    threads = [threading.Thread(target=hold, args=(index * rounds,)) for index in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        came += leases.collect()
    gc.collect()
    came += leases.collect()
    assert sorted(came) == list(range(3 * rounds)) and len(leases) == 0


def test_comparing_arrays_is_never_tried():
    # A list of weak references is searched by ==, which for live arrays has no truth value.
    leases = Leases()
    arrays = [np.zeros(3) for _ in range(4)]
    leases.lend(PLACE, arrays)
    del arrays[2]
    assert leases.collect() == []
    del arrays[:]
    assert leases.collect() == [PLACE]
