"""A packer gives blocks that nobody else has, knows every plan a record may name, and loses no memory whatever happens."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from opexec.ipc.arena import Arena, NoRoom
from opexec.ipc.packer import Packer
from opexec.ipc.segment import PAGE, Segment
from opexec.ipc.wire import BYTES, STRING

NAMES = ("x",)


class Memory:
    """Real segments of the size asked for, until `limit` bytes are used up."""

    def __init__(self, limit=1 << 30):
        self.left = limit
        self.segments = []
        self.spare = []  # what was only to be had if there was plenty

    def grow(self, size, spare=False):
        size = -(-size // PAGE) * PAGE
        if spare:
            self.spare.append(size)
        if size > (self.left // 4 if spare else self.left):
            raise NoRoom("{} bytes are needed, {} are left".format(size, self.left))
        self.left -= size
        self.segments.append(Segment.create(len(self.segments), size))
        return self.segments[-1]

    def close(self):
        for segment in self.segments:
            segment.close()


@pytest.fixture
def packers():
    """Makes packers over memory of a given size."""
    made = []

    def make(limit=1 << 30, examine=None, turns=lambda size: 1):
        made.append(Memory(limit))
        return Packer(Arena(made[-1].grow), examine, turns)

    yield make
    for memory in made:
        memory.close()


def texts(*elements):
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


def packed_as_calls_are(packer, names, arrays, note=0, outside=()):
    """By the short way where that is open, as who sends calls and results does."""
    return packer.pack_again(names, arrays, note, outside) or packer.pack(names, arrays, note, outside)


def make_last(packer, names, arrays, outside=()):
    """Packed twice, which makes a signature that of the last message; returns the block, which was given back."""
    for _ in range(2):
        block = packer.pack(names, arrays, 0, outside)
        packer.give(block)
    return block


def assert_all_free(packer):
    packer.trim()
    assert packer.arena.free_bytes == packer.arena.size, "memory is lost"


def read(block):
    """What the other side reads from a block of one tensor."""
    view = block.plan.views(block.extent.segment.map, block.extent.offset)[0]
    return block.plan.decode(0, view).tolist() if block.plan.texts else view.tolist()


# Blocks and signatures


def test_signatures_that_come_and_go_do_not_each_keep_their_memory(packers):
    packer = packers()
    size = 1 << 16
    for count in range(40):
        packer.give(packer.pack(NAMES, [np.zeros(size + count, np.uint8)], 0))
    assert packer.arena.size < 4 * size


def test_signatures_in_turn_keep_their_blocks_when_memory_runs_short(packers):
    packer = packers()
    turn = [np.zeros(1 << 16, np.uint8), np.zeros(1 << 17, np.uint8)]
    blocks = []
    for _ in range(5):
        for array in turn:
            block = packer.pack(NAMES, [array], 0)
            blocks.append(block)
            packer.give(block)
    assert blocks[-2:] == blocks[2:4] == blocks[4:6], "each signature uses its own block again"


def test_a_signature_seen_before_uses_its_blocks_again(packers):
    examined = []
    packer = packers(examine=lambda names, arrays: examined.append(names) or {"n": 3})
    places = set()
    for value in range(5):
        block = packer.pack(NAMES, [np.full(3, value)], 0)
        assert read(block) == [value] * 3
        assert block.stock.examined == {"n": 3}
        places.add((block.plan.id, block.place))
        packer.give(block)
    assert len(places) == 1 and examined == [NAMES]


# Turns


def three(size):
    return 3 if size >= 1 << 16 else 1


def places(packer, array, count, pack=packed_as_calls_are):
    """Where so many messages lay, each given back before the next."""
    found = []
    for _ in range(count):
        block = pack(packer, NAMES, [array])
        found.append(block.place)
        assert read(block)[:2] == array.ravel().tolist()[:2]
        packer.give(block)
    return found


@pytest.mark.parametrize(
    "size", [1 << 16, 1 << 18, 1 << 21], ids=["64 KiB", "256 KiB", "2 MiB, a large copy"]
)
@pytest.mark.parametrize(
    "pack",
    [packed_as_calls_are, lambda packer, names, arrays: packer.pack(names, arrays, 0)],
    ids=["as calls are", "anew"],
)
def test_blocks_take_turns_from_the_second_message_on(packers, pack, size):
    packer = packers(turns=three)
    found = places(packer, np.arange(size, dtype="u1"), 13, pack)
    assert len(set(found[1:4])) == 3 and found[0] in found[1:4]
    assert found[1:] == found[1:4] * 4, "always in the same order"
    assert len(packer.arena.segments) == 2, "those that were missing came together"


def test_small_blocks_take_none(packers):
    assert len(set(places(packers(turns=three), np.arange(9.0), 5))) == 1


def test_reserved_blocks_take_turns(packers):
    packer = packers(turns=three)
    block = packer.reserve(NAMES, (np.dtype("u1"),), ((1 << 16,),), 0)
    found = []
    for _ in range(7):
        packer.give(block)
        found.append(block.place)
        block = packer.another(block.stock)
    packer.give(block)
    assert len(set(found)) == 3 and found[1:4] == found[4:]


def test_a_signature_that_comes_once_has_one_block(packers):
    packer = packers(turns=three)
    for count in range(9):
        packer.give(packer.pack(NAMES, [np.zeros((1 << 16) + count, "u1")], 0))
    assert packer.arena.size < 4 << 16


def test_more_than_take_turns_may_be_out_at_once(packers):
    packer = packers(turns=three)
    blocks = [packed_as_calls_are(packer, NAMES, [np.full(1 << 16, value, "u1")]) for value in range(7)]
    assert [read(block)[0] for block in blocks] == list(range(7))
    for block in blocks:
        packer.give(block)
    assert len(set(places(packer, np.zeros(1 << 16, "u1"), 14))) == 3, "what was too many stays aside"
    assert_all_free(packer)


def test_blocks_take_turns_beside_those_that_are_out(packers):
    packer = packers(turns=three)
    array = np.zeros(1 << 16, "u1")
    places(packer, array, 4)
    out = [packer.pack(NAMES, [array], 0) for _ in range(2)]
    assert len(set(places(packer, array, 4))) == 1, "none is made while one waits"
    for block in out:
        packer.give(block)
    assert len(set(places(packer, array, 9))) == 3


def test_without_plenty_of_memory_no_blocks_take_turns_and_it_is_not_asked_for_again(packers):
    packer = packers(limit=5 << 16, turns=three)
    assert len(set(places(packer, np.zeros(1 << 16, "u1"), 9))) == 1
    memory = packer.arena._grow.__self__
    assert memory.spare == [2 << 16]


def test_what_takes_turns_is_given_up_for_others_where_memory_is_short(packers):
    packer = packers(limit=14 << 16, turns=three)
    array = np.zeros(1 << 16, "u1")
    assert len(set(places(packer, array, 9))) == 3
    held = [packer.pack(NAMES, [np.zeros((1 << 16) + 64 * count, "u1")], 0) for count in range(1, 7)]
    others = [packer.pack(NAMES, [array[:-64]], 0) for _ in range(2)]
    assert len(held) + len(others) == 8
    with pytest.raises(NoRoom):
        while True:
            others.append(packer.pack(NAMES, [array[:-64]], 0))
    for block in held + others:
        packer.give(block)
    assert len(set(places(packer, array, 9))) == 1, "two that take turns would take each other's blocks"
    assert_all_free(packer)


def test_idle_blocks_that_took_turns_go_back_and_take_turns_again(packers):
    packer = packers(turns=three)
    array = np.zeros(1 << 16, "u1")
    places(packer, array, 5)
    for count in range(1, 9):
        packer.give(packer.pack(NAMES, [np.zeros((1 << 16) + 64 * count, "u1")], 0))
    assert packer.arena.size < 10 << 16
    found = places(packer, array, 8)
    assert len(set(found)) == 3 and found[2:5] == found[5:]


# Blocks in use


def test_blocks_in_use_are_apart(packers):
    packer = packers()
    blocks = [packer.pack(NAMES, [np.full(3, value)], 0) for value in range(5)]
    assert len({block.place for block in blocks}) == 5 and len({block.plan.id for block in blocks}) == 1
    assert [read(block) for block in blocks] == [[value] * 3 for value in range(5)]


@pytest.mark.parametrize(
    "other",
    [
        (("y",), [np.zeros(3)], 0, ()),
        (NAMES, [np.zeros(4)], 0, ()),
        (NAMES, [np.zeros((3, 1))], 0, ()),
        (NAMES, [np.zeros(3, "f4")], 0, ()),
        (NAMES, [np.zeros(3, ">f8")], 0, ()),
        (NAMES, [np.zeros(3)], 1, ()),
        (NAMES, [np.zeros(3)], 0, (0,)),
    ],
    ids=["name", "size", "rank", "dtype", "byte order", "note", "outside"],
)
def test_each_part_of_a_signature_counts(packers, other):
    packer = packers()
    for _ in range(2):
        first = packer.pack(NAMES, [np.zeros(3)], 0)
        second = packer.pack(*other)
        assert first.plan.id != second.plan.id
        assert (second.plan.names, second.plan.note, second.plan.outside) == (other[0], other[2], other[3])
        assert second.plan.shapes == (other[1][0].shape,) and second.plan.dtypes[0] == other[1][
            0
        ].dtype.newbyteorder("=")


def test_what_examine_raises_is_raised_and_nothing_is_kept(packers):
    def refuse(names, arrays):
        raise LookupError("no")

    packer = packers(examine=refuse)
    for _ in range(2):
        with pytest.raises(LookupError):
            packer.pack(NAMES, [np.zeros(3)], 0)
    assert packer.plan_ids == set() and packer.arena.size == 0


def test_what_cannot_be_planned_is_an_error_and_nothing_is_kept(packers):
    packer = packers()
    with pytest.raises(TypeError, match="Python objects"):
        packer.pack(NAMES, [np.zeros(3, [("a", "O")])], 0)
    with pytest.raises(TypeError, match="element 1"):
        packer.pack(NAMES, [texts("a", 5)], 0)
    assert packer.plan_ids == set() and packer.arena.size == 0


class Interrupted:
    """Looks like an array, and Ctrl-C comes while it is copied."""

    def __init__(self, array):
        self.dtype = array.dtype
        self.shape = array.shape

    def __array__(self, *arguments, **options):
        raise KeyboardInterrupt


def test_a_block_whose_filling_failed_comes_back(packers, monkeypatch):
    packer = packers()
    packer.give(packer.pack(NAMES, [np.zeros(5000)], 0))
    packer.give(packer.pack(NAMES, [texts("a")], 0))

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("opexec.ipc.plan.Plan.fill", interrupted)
        for array in (Interrupted(np.zeros(5000)), texts("b"), np.zeros(5)):
            with pytest.raises(KeyboardInterrupt):
                packer.pack(NAMES, [array], 0)
    assert_all_free(packer)


def test_small_tensors_arrive_whatever_their_layout_and_byte_order(packers):
    packer = packers()
    plain = np.arange(24, dtype=np.int32).reshape(4, 6)
    for array in (plain, plain.T, plain[::2, ::-1], np.asfortranarray(plain), plain.astype(">i4"), plain[:0]):
        for _ in range(2):
            block = packer.pack(NAMES, [array], 0)
            assert read(block) == array.tolist()
            packer.give(block)


@pytest.mark.parametrize("size", [3, 5000], ids=["as bytes", "as arrays"])
def test_what_the_last_message_was_like_is_packed_again(packers, size):
    packer = packers()
    for value in range(4):
        arrays = [np.full(size, value), np.full((2, 2), -value)]
        block = packer.pack_again(("a", "b"), arrays, 0)
        assert (block is None) == (value < 2), "such a message has not come twice"
        if block is None:
            block = packer.pack(("a", "b"), arrays, 0)
        for view, array in zip(block.plan.views(block.extent.segment.map, block.extent.offset), arrays):
            np.testing.assert_array_equal(view, array)
        packer.give(block)
    turned = [np.arange(size)[::-1], arrays[1]]
    block = packed_as_calls_are(packer, ("a", "b"), turned)
    assert block.views[0].tolist() == turned[0].tolist()
    packer.give(block)
    assert_all_free(packer)


@pytest.mark.parametrize(
    "names, second, note, outside",
    [
        (("a", "c"), np.zeros(4), 0, ()),
        (("a",), np.zeros(4), 0, ()),
        (("a", "b"), np.zeros(4), 1, ()),
        (("a", "b"), np.zeros(4), 0, (1,)),
        (("a", "b"), np.zeros(5), 0, ()),
        (("a", "b"), np.zeros((4, 1)), 0, ()),
        (("a", "b"), np.zeros(4, "f4"), 0, ()),
        (("a", "b"), np.zeros(4, ">f8"), 0, ()),
        (("a", "b"), np.ma.zeros(4), 0, ()),
        (("a", "b"), [0.0] * 4, 0, ()),
        (("a", "b"), None, 0, ()),
        (("a", "b"), texts(*"abcd"), 0, ()),
    ],
)
def test_anything_else_is_not_packed_again_and_loses_nothing(packers, names, second, note, outside):
    packer = packers()
    for first in (np.zeros(3), np.zeros(5000)):
        make_last(packer, ("a", "b"), [first, np.zeros(4)])
        assert packer.pack_again(names, [first, second][: len(names)], note, outside) is None
        packer.give(packer.pack_again(("a", "b"), [first, np.zeros(4)], 0))
    assert_all_free(packer)


def test_tensors_that_lie_outside_and_what_comes_late_or_large_or_is_retired(packers):
    packer = packers()
    block = make_last(packer, ("a", "b"), [np.zeros(3), np.full(4, 2.0)], (0,))
    again = packer.pack_again(("a", "b"), [np.zeros(3), np.full(4, 5.0)], 0, (0,))
    assert again is block and again.views[0] is None and again.views[1].tolist() == [5.0] * 4
    assert packer.pack_again(("a", "b"), [np.zeros(3), np.zeros(4)], 0, (0,)) is None, "no block waits"
    packer.give(again)

    for arrays in ([np.zeros(1 << 18)], [texts("a")]):
        make_last(packer, NAMES, arrays)
        assert packer.pack_again(NAMES, arrays, 0) is None

    block = make_last(packer, NAMES, [np.zeros(3)])
    block.stock.retired = True  # by another thread, in this very moment
    assert packer.pack_again(NAMES, [np.zeros(3)], 0) is None


def test_ctrl_c_while_the_last_message_is_packed_again_loses_nothing(packers, interruptions):
    def prepare():
        packer = packers()
        make_last(packer, NAMES, [np.zeros(3)])
        return packer, []

    def operate(state):
        packer, blocks = state
        blocks.append(packer.pack_again(NAMES, [np.full(3, 1.0)], 0))
        packer.give(blocks.pop())

    for packer, blocks in interruptions(prepare, operate):
        block = packed_as_calls_are(packer, NAMES, [np.full(3, 3.0)])
        assert set(read(block)) == {3.0}
        assert all(one.place != block.place for one in blocks)


def test_reserved_blocks_are_uninitialised_memory_of_their_plan(packers):
    packer = packers()
    specs = (("a", "b"), (np.dtype("f4"), np.dtype("i8")), ((2, 3), ()))
    block = packer.reserve(*specs, note=("dict",))
    assert [(view.dtype, view.shape) for view in block.views] == list(zip(specs[1], specs[2]))
    block.views[0][...] = 1.5
    assert block.plan.views(block.extent.segment.map, block.extent.offset)[0].tolist() == [[1.5] * 3] * 2
    other = packer.reserve(*specs, note=("dict",))
    assert other.place != block.place and other.plan is block.plan
    packer.give(block)
    assert packer.reserve(*specs, note=("dict",)).place == block.place


def test_another_block_of_a_plan_until_it_is_retired(packers):
    packer = packers()
    block = packer.reserve(("a",), (np.dtype("f4"),), ((3,),), note=("dict",))
    other = packer.another(block.stock)
    assert other.plan is block.plan and other.place != block.place
    packer.give(block)
    assert packer.another(block.stock) is block
    for one in (block, other):
        packer.give(one)
    for size in range(200):
        packer.give(packer.reserve(("a",), (np.dtype("f8"),), ((size,),), note=("dict",)))
    assert packer.another(block.stock) is None and block.stock.made == 0


# Texts


def test_texts_of_changing_length_soon_share_one_plan(packers):
    packer = packers()
    ids = []
    for length in [1, 900, 3, 700, 0, 888]:
        block = packer.pack(NAMES, [texts("x" * length, "é" * length)], 0)
        assert read(block) == ["x" * length, "é" * length]
        ids.append(block.plan.id)
        packer.give(block)
    assert len(set(ids)) == 2, "a text that fits into the room there is needs no new plan"


def test_texts_and_bytes_of_one_signature_do_not_mix(packers):
    packer = packers()
    for elements, kind in [(("a", "b"), STRING), ((b"a", b"\xff"), BYTES), (("c", "d"), STRING)]:
        block = packer.pack(NAMES, [texts(*elements)], 0)
        assert block.plan.dtypes == (kind,) and read(block) == list(elements)
        packer.give(block)
    assert_all_free(packer)


def test_a_plan_that_was_outgrown_stays_known_until_its_blocks_are_back(packers):
    packer = packers()
    small = packer.pack(NAMES, [texts("small")], 0)
    large = packer.pack(NAMES, [texts("large" * 100)], 0)
    assert {small.plan.id, large.plan.id} <= packer.plan_ids
    assert read(small) == ["small"]
    packer.give(small)
    assert packer.plan_ids == {large.plan.id}
    packer.give(large)
    assert_all_free(packer)


# Many signatures


def test_plans_of_many_signatures_are_given_up_but_none_in_use(packers):
    packer = packers()
    held = [packer.pack(NAMES, [np.full(size, 7)], 0) for size in range(1, 6)]
    for size in range(10, 500):
        packer.give(packer.pack(NAMES, [np.zeros(size)], 0))
        assert {block.plan.id for block in held} <= packer.plan_ids
    assert len(packer.plan_ids) < 200, "plans pile up"
    assert [read(block) for block in held] == [[7] * size for size in range(1, 6)]
    for block in held:
        packer.give(block)
    assert_all_free(packer)


class PackerMachine(RuleBasedStateMachine):
    """Little memory and many signatures; whatever is packed stays as it is until it is given back."""

    blocks = Bundle("blocks")

    def __init__(self):
        super().__init__()
        self.memory = Memory(16 * PAGE)
        self.packer = Packer(Arena(self.memory.grow), turns=lambda size: 1 + size // 256 % 4)
        self.out = {}
        self.count = 0

    def packed(self, array, expected):
        try:
            block = packed_as_calls_are(self.packer, NAMES, [array])
        except NoRoom:
            # Everything that is not out would not do either, in one piece.
            assert self.packer.arena.free_bytes < 16 * PAGE
            return None
        self.out[block] = expected
        return block

    @rule(target=blocks, size=st.integers(0, 90))
    def numbers(self, size):
        self.count += 1
        return self.packed(np.full(16 * size, self.count), [self.count] * (16 * size))

    @rule(target=blocks, lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=2), binary=st.booleans())
    def some_texts(self, lengths, binary):
        letter = b"x" if binary else "é"
        elements = [letter * length for length in lengths]
        return self.packed(texts(*elements), elements)

    @rule(target=blocks, first=st.integers(1, 500))
    def many_signatures(self, first):
        for size in range(first, first + 70):
            block = self.packed(np.zeros(size, "u1"), [0] * size)
            if block is not None and size + 1 < first + 70:
                self.give(block)
        return block

    @rule(block=consumes(blocks))
    def give(self, block):
        if block is not None:
            del self.out[block]
            self.packer.give(block)

    @rule()
    def trim(self):
        self.packer.trim()

    @invariant()
    def what_is_out_is_untouched_and_its_plan_known(self):
        assert {block.plan.id for block in self.out} <= self.packer.plan_ids
        for block, expected in self.out.items():
            assert read(block) == expected

    def teardown(self):
        for block in list(self.out):
            self.give(block)
        assert_all_free(self.packer)
        self.memory.close()


TestPacker = PackerMachine.TestCase
TestPacker.settings = settings(max_examples=40, stateful_step_count=25)


# No room


def test_memory_that_waits_for_one_signature_serves_another(packers):
    packer = packers(limit=4 * PAGE)
    packer.give(packer.pack(NAMES, [np.zeros(4 * PAGE, "u1")], 0))
    for size in (PAGE, 2 * PAGE, 4 * PAGE):
        block = packer.pack(NAMES, [np.full(size, 3, "i1")], 0)
        assert read(block) == [3] * size
        packer.give(block)


def test_no_room_is_an_error_and_the_next_message_works(packers):
    packer = packers(limit=4 * PAGE)
    held = packer.pack(NAMES, [np.full(3 * PAGE, 1, "u1")], 0)
    for array in (np.zeros(2 * PAGE, "u1"), texts("x" * 2 * PAGE)):
        with pytest.raises(NoRoom):
            packer.pack(NAMES, [array], 0)
    assert read(held) == [1] * 3 * PAGE
    small = packer.pack(NAMES, [np.full(5, 2)], 0)
    assert read(small) == [2] * 5
    packer.give(held)
    packer.give(small)
    block = packer.pack(NAMES, [np.zeros(2 * PAGE, "u1")], 0)
    packer.give(block)
    assert_all_free(packer)


# Several threads


def run(*targets):
    errors = []

    def guarded(target):
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_that_meet_a_new_signature_at_once_lose_no_memory(packers):
    both = threading.Barrier(2)
    packer = packers(examine=lambda names, arrays: both.wait())
    blocks = []

    def pack():
        blocks.append(packer.pack(NAMES, [np.zeros(3)], 0))

    run(pack, pack)
    assert {block.plan.id for block in blocks} <= packer.plan_ids, (
        "a record may name a plan that counts as given up"
    )
    assert blocks[0].place != blocks[1].place
    for block in blocks:
        packer.give(block)
    assert_all_free(packer)


class Paused(list):
    """No waiting blocks, found out slowly: meanwhile another thread does what it likes."""

    def __init__(self, meanwhile):
        super().__init__()
        self._meanwhile = [meanwhile]

    def pop(self, index=-1):
        if not self and self._meanwhile:
            run(self._meanwhile.pop())
        return super().pop(index)


def test_a_plan_given_up_while_another_thread_packs_by_it_counts_as_known(packers):
    packer = packers()

    def give_up():
        packer.trim()
        for size in range(100, 300):
            packer.give(packer.pack(NAMES, [np.zeros(size)], 0))
        assert packer.plan_ids

    first = packer.pack(NAMES, [np.zeros(3)], 0)
    packer.give(first)
    packer.trim()
    first.stock.free = Paused(give_up)
    block = packer.pack(NAMES, [np.full(3, 5.0)], 0)
    assert read(block) == [5.0] * 3
    assert block.plan.id in packer.plan_ids, (
        "the other side may forget a plan that this block's record will name"
    )


def test_trimming_beside_packing(packers):
    packer = packers()
    stop = threading.Event()

    def pack():
        try:
            for step in range(3000):
                block = packed_as_calls_are(packer, NAMES, [np.full(3, step)])
                assert read(block) == [step] * 3
                packer.give(block)
        finally:
            stop.set()

    def trim():
        while not stop.is_set():
            packer.trim()

    run(pack, trim)
    assert_all_free(packer)


class Contended(list):
    """Waiting blocks of which another thread takes the last one whenever somebody has just looked whether there is one."""

    def __init__(self, blocks, taken):
        super().__init__(blocks)
        self._taken = taken

    def __len__(self):
        count = super().__len__()
        if count == 1:
            self._taken.append(super().pop())
        return count


def test_a_block_that_another_thread_takes_in_the_same_moment_is_no_error(packers):
    packer = packers()
    block = packer.pack(NAMES, [np.zeros(3)], 0)
    packer.give(block)
    taken = []
    block.stock.free = Contended(block.stock.free, taken)
    packer.trim()
    block.stock.free = []
    for one in taken:
        packer.give(one)
    assert_all_free(packer)


def test_ctrl_c_never_gives_one_block_to_two(packers, interruptions):
    def prepare():
        packer = packers()
        packer.give(packer.pack(NAMES, [np.zeros(3)], 0))
        return packer, []

    def operate(state):
        packer, blocks = state
        blocks.append(packed_as_calls_are(packer, NAMES, [np.full(3, 1.0)]))
        blocks.append(packer.pack(NAMES, [texts("a" * 70)], 0))
        blocks.append(packer.pack(NAMES, [np.full(5, 2.0)], 0))
        packer.give(blocks.pop(0))

    for packer, blocks in interruptions(prepare, operate):
        blocks += [packer.pack(NAMES, [np.full(size, 3.0)], 0) for size in (3, 3, 5, 5)]
        spans = sorted((block.place, block.place + block.extent.size) for block in blocks)
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:]))
        for block in blocks[-4:]:
            assert set(read(block)) == {3.0}
