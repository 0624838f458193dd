"""Extents of an arena never overlap, are aligned, and their memory comes back whole."""

from __future__ import annotations

import threading

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from opexec.ipc.arena import Arena, NoRoom
from opexec.ipc.wire import ALIGNMENT, PLACE_BITS, PLACE_MASK


class Memory:
    """A segment as far as an arena is concerned."""

    def __init__(self, id, size):
        self.id = id
        self.size = size


class Supply:
    """Segments of 1 KiB, or of the size asked for, until `left` bytes are used up."""

    def __init__(self, left):
        self.left = left
        self.made = []

    def grow(self, size):
        size = max(size, 1024)
        if size > self.left:
            raise NoRoom("{} bytes are needed, {} are left".format(size, self.left))
        self.left -= size
        self.made.append(Memory(3 * len(self.made), size))
        return self.made[-1]


def assert_apart(extents):
    by_segment = {}
    for extent in extents:
        by_segment.setdefault(extent.segment.id, []).append((extent.offset, extent.offset + extent.size))
    for spans in by_segment.values():
        spans.sort()
        for (_, end), (start, _) in zip(spans, spans[1:]):
            assert end <= start, "two extents overlap"


class ArenaMachine(RuleBasedStateMachine):
    extents = Bundle("extents")

    def __init__(self):
        super().__init__()
        self.supply = Supply(8192)
        self.arena = Arena(self.supply.grow)
        self.live = []

    @rule(target=extents, size=st.integers(0, 1500) | st.sampled_from([0, 1, 64, 65, 512, 1024]))
    def allocate(self, size):
        fits = max(size, 1)
        try:
            extent = self.arena.allocate(size)
        except NoRoom:
            assert max(fits, 1024) > self.supply.left
            assert not any(free >= -(-fits // ALIGNMENT) * ALIGNMENT for free in self.holes())
            return None
        assert extent.size >= size and extent.size % ALIGNMENT == 0
        self.live.append(extent)
        return extent

    @rule(extent=consumes(extents))
    def free(self, extent):
        if extent is not None:
            self.live.remove(extent)
            self.arena.free(extent)

    def holes(self):
        for segment in self.supply.made:
            at = 0
            for extent in sorted(
                (one for one in self.live if one.segment is segment), key=lambda one: one.offset
            ):
                yield extent.offset - at
                at = extent.offset + extent.size
            yield segment.size - at

    @invariant()
    def extents_are_apart_aligned_and_inside(self):
        assert_apart(self.live)
        for extent in self.live:
            assert extent.offset % ALIGNMENT == 0
            assert 0 <= extent.offset and extent.offset + extent.size <= extent.segment.size
            assert (extent.place >> PLACE_BITS, extent.place & PLACE_MASK) == (
                extent.segment.id,
                extent.offset,
            )

    @invariant()
    def nothing_is_lost(self):
        assert self.arena.size == sum(segment.size for segment in self.supply.made)
        assert self.arena.count == len(self.supply.made)
        assert list(self.arena.segments.values()) == self.supply.made
        assert self.arena.free_bytes == self.arena.size - sum(extent.size for extent in self.live)

    def teardown(self):
        for extent in self.live:
            self.arena.free(extent)
        # Neighbours have joined: a whole segment is to be had again, without growing.
        for segment in self.supply.made:
            assert self.arena.find(segment.size) is not None


TestArena = ArenaMachine.TestCase


def test_no_room_leaves_the_arena_as_it_was():
    supply = Supply(1024)
    arena = Arena(supply.grow)
    held = arena.allocate(1024)
    for _ in range(3):
        with pytest.raises(NoRoom, match="1024 bytes are needed, 0 are left"):
            arena.allocate(64)
    arena.free(held)
    assert arena.allocate(1024).offset == 0


def test_many_threads_get_extents_that_are_apart():
    arena = Arena(Supply(1 << 20).grow)
    kept = []
    start = threading.Barrier(4)

    def churn(seed):
        mine = []
        start.wait()
        for step in range(600):
            mine.append(arena.allocate(64 + (seed * 131 + step * 197) % 900))
            if len(mine) > 8:
                arena.free(mine.pop(step * 7 % len(mine)))
        kept.extend(mine)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 4 * 8
    assert_apart(kept)
    assert arena.free_bytes == arena.size - sum(extent.size for extent in kept)


# Of 16 extents of 128 bytes in one segment: which are free before, and which is freed.
@pytest.mark.parametrize(
    "free, freed",
    [([3, 8], None), ([3, 5], 4), ([3, 8], 4), ([3, 8], 7), ([3, 8, 14, 15], 12), ([14, 15], 3), ([3], 15)],
    ids=str,
)
def test_extents_are_apart_after_ctrl_c(free, freed, interruptions):
    def prepare():
        arena = Arena(Supply(2048).grow)
        extents = [arena.allocate(128) for _ in range(16)]
        for index in free:
            arena.free(extents[index])
        return arena, extents

    def operate(state):
        arena, extents = state
        if freed is None:
            arena.allocate(64)
        else:
            arena.free(extents[freed])

    for arena, extents in interruptions(prepare, operate):
        live = [extent for index, extent in enumerate(extents) if index not in free and index != freed]
        while True:
            try:
                live.append(arena.allocate(64))
            except NoRoom:
                break
        assert_apart(live)
