"""Packing a message's tensors into one block, by a plan kept for each signature.

A block that comes back stays with its plan, with its views made, so a signature seen before costs a look-up and the copying. Blocks
return to the arena when their plan is the oldest of too many, or was not used since the arena was last short of room. Of most plans the
block that came back last goes next, being still in this core's cache; of some, blocks take turns (`turns.py`).
"""

from __future__ import annotations

import threading
from operator import attrgetter

import numpy as np

from .arena import NoRoom
from .plan import Plan, text_capacities

_PLANS = 64

#: From this many bytes on copying takes longer than waking the other side.
_LARGE = 1 << 20

#: Up to this many bytes a tensor is copied as bytes, which takes half the time of an assignment by numpy but keeps the interpreter's lock.
_SMALL = 1 << 14

_ndarray = np.ndarray
_dtype = attrgetter("dtype")
_shape = attrgetter("shape")


class Block:
    """One extent of the arena, laid out by a stock's plan: `views` are its tensors' arrays, `spans` the slices of `memory` that they take up,
    `place` is how records name it."""

    __slots__ = ("stock", "plan", "extent", "views", "memory", "spans", "place")

    def __init__(self, stock, extent):
        self.stock = stock
        self.plan = stock.plan
        self.extent = extent
        self.views = stock.plan.views(extent.segment.map, extent.offset)
        self.memory = extent.segment.map
        self.spans = stock.plan.spans(extent.offset) if stock.as_bytes else ()
        self.place = extent.place


class Stock:
    """A plan and the blocks made for it: those in `free` wait for the next message, `made` counts them all.

    `key` is the signature it is for, `expected` pairs of dtype and shape, one a tensor; `examined` is what the packer's `examine` found out.
    `turns` is how many blocks are to take turns, `next` the index in `free` of the one that goes next, if there are that many: those that came
    back before are not needed. `narrow`: they are still to be made.
    """

    __slots__ = (
        "key",
        "expected",
        "plan",
        "examined",
        "largest",
        "large",
        "as_bytes",
        "simple",
        "turns",
        "next",
        "narrow",
        "free",
        "made",
        "used",
        "retired",
    )

    def __init__(self, key, plan, examined, turns):
        self.key = key
        self.expected = tuple(zip(key[1], key[2]))
        self.plan = plan
        self.examined = examined
        self.largest = max(plan.sizes, default=0)
        self.large = plan.copied > _LARGE
        #: All tensors are small, and lie in the block as they lie in memory if they are contiguous there.
        self.as_bytes = plan.whole and self.largest <= _SMALL and plan.dtypes == key[1]
        self.turns = turns
        self.next = -turns
        self.free = []
        self.made = 0
        self.used = True
        self.retired = False
        self.widened(turns == 1)

    def widened(self, done):
        """Whether the blocks that are to take turns have been made, if there was room."""
        self.narrow = not done
        #: Nothing is to be done but to copy each tensor, unless it lies outside, and that soon.
        self.simple = done and not self.plan.texts and not self.large and self.plan.table < 0

    def fits(self, names, arrays, note, outside):
        """Whether a message has this very signature, told without building a key.

        dtypes are compared by identity, which costs least and may say no where yes were right.
        """
        key = self.key
        if key[0] != names or key[3] != note or key[4] != outside:
            return False
        for array, (dtype, shape) in zip(arrays, self.expected):
            if array.dtype is not dtype or array.shape != shape:
                return False
        return True


class Packer:
    """Packs messages into an arena's blocks. Thread-safe.

    ``examine(names, arrays)`` is called once for each new signature, before anything is planned for it; it may raise. ``turns(size)`` says
    how many blocks of a size are to take turns.
    """

    def __init__(self, arena, examine=None, turns=lambda size: 1):
        self.arena = arena
        #: Called ahead of every message, so that the other side wakes up while it is packed; and, if that is not wanted, while a large one is.
        self.rouse = None
        self.rouse_for_large = None
        self._examine = examine
        self._turns = turns
        self._short = False  # of memory: none for further blocks to take turns
        self._stocks = {}
        self._last = None
        self._leaving = []  # retired, with blocks still on their way
        self._lock = threading.RLock()  # a garbage collection inside may end a lease
        self._next_id = 1

    @property
    def plan_ids(self):
        """The ids of the plans that a record may still name; the other side may forget the rest."""
        with self._lock:
            self._leaving = [stock for stock in self._leaving if stock.made]
            return {stock.plan.id for stock in list(self._stocks.values()) + self._leaving}

    @property
    def last_plan(self):
        """The plan of the message packed last, or None."""
        stock = self._last
        return None if stock is None or stock.retired else stock.plan

    @property
    def last_largest(self):
        """Bytes of the largest tensor of the message packed last, where all of them lay in its block; else more than any."""
        stock = self._last
        return stock.largest if stock is not None and stock.plan.whole else 1 << 63

    def pack_again(self, names, arrays, note, outside=()):
        """`pack`, for what the last message was like, if that was no large copy. None for anything else, arrays or not, which is for `pack`.

        It looks at each array once, where `pack` and who calls it do so several times.
        """
        stock = self._last
        if stock is None or not stock.simple or not arrays or type(arrays[0]) is not _ndarray:
            return None
        key = stock.key
        if key[0] != names or key[3] != note or key[4] != outside:
            return None
        if self.rouse is not None:
            self.rouse()
        try:
            block = stock.free.pop(stock.next)
        except IndexError:
            return None
        try:
            if stock.as_bytes:
                memory = block.memory
                for span, array, (dtype, shape) in zip(block.spans, arrays, stock.expected):
                    if type(array) is not _ndarray or array.dtype is not dtype or array.shape != shape:
                        break
                    memory[span] = array
                else:
                    if not stock.retired:
                        stock.used = True
                        return block
            else:
                for view, array, (dtype, shape) in zip(block.views, arrays, stock.expected):
                    if type(array) is not _ndarray or array.dtype is not dtype or array.shape != shape:
                        break
                    if view is not None:
                        view[...] = array
                else:
                    if not stock.retired:
                        stock.used = True
                        return block
        except (BufferError, ValueError):  # one is not contiguous
            pass
        except BaseException:
            self.give(block)
            raise
        self.give(block)
        return None

    def pack(self, names, arrays, note, outside=()):
        """Copy `arrays` (exact ndarrays, named by the tuple `names`) into one block and return it.

        `outside` are the indices, in order, of tensors that lie in shared memory already. Raises NoRoom, TypeError or ValueError.
        """
        stock = self._last
        rouse = self.rouse
        if rouse is not None and (stock is None or not stock.large):
            rouse()
        if stock is None or not stock.fits(names, arrays, note, outside):
            key = (names, tuple(map(_dtype, arrays)), tuple(map(_shape, arrays)), note, outside)
            stock = self._stocks.get(key)
            if stock is None or stock.plan.texts:
                return self._pack_slowly(key, arrays)
            self._last = stock
        stock.used = True
        if stock.narrow:
            self._widen(stock)
        try:
            block = stock.free.pop(stock.next)
        except IndexError:
            block = self._one_of_few(stock)
        if stock.retired:  # by another thread, just now: nobody may learn of its plan any more
            self.give(block)
            return self._pack_slowly(stock.key, arrays)
        try:
            if stock.large:
                stock.plan.fill_and_rouse(block.views, arrays, rouse or self.rouse_for_large)
            elif stock.as_bytes:
                memory = block.memory
                try:
                    for span, array in zip(block.spans, arrays):
                        memory[span] = array
                except (BufferError, ValueError):  # one is not contiguous
                    stock.plan.fill(block.views, arrays, {})
            else:
                stock.plan.fill(block.views, arrays, {})
        except BaseException:
            self.give(block)
            raise
        return block

    def reserve(self, names, dtypes, shapes, note):
        """A block with uninitialised memory for tensors of these names, dtypes and shapes."""
        templates = [np.broadcast_to(np.empty((), dtype), shape) for dtype, shape in zip(dtypes, shapes)]
        return self._take((names, dtypes, shapes, note), names, templates, note, (), {})

    def another(self, stock):
        """One more block by the plan of one that was taken before, as `Block.stock` has it; None if that is retired."""
        stock.used = True
        if stock.narrow:
            self._widen(stock)
        try:
            block = stock.free.pop(stock.next)
        except IndexError:
            block = self._one_of_few(stock)
        if stock.retired:
            self.give(block)
            return None
        return block

    def give(self, block):
        """Take a block back."""
        stock = block.stock
        stock.free.append(block)
        if stock.retired:
            self._empty(stock)

    def trim(self):
        """Return all waiting blocks to the arena."""
        with self._lock:
            for stock in list(self._stocks.values()):
                self._empty(stock)

    def close(self):
        """Let go of all blocks, so that their memory goes with the last array over it."""
        with self._lock:
            for stock in list(self._stocks.values()) + self._leaving:
                stock.free.clear()
            self._stocks.clear()
            self._last = None

    def _pack_slowly(self, key, arrays):
        names, _, _, note, outside = key
        encoded, capacities = text_capacities(arrays)
        block = self._take(key, names, arrays, note, outside, capacities)
        try:
            block.plan.fill(block.views, arrays, encoded)
        except BaseException:
            self.give(block)
            raise
        return block

    def _take(self, key, names, arrays, note, outside, capacities):
        """A block by the plan for `key`, which is made if there is none, or none that holds texts of these capacities."""
        examined = None
        while True:
            stock = self._stocks.get(key)
            if stock is None or not stock.plan.holds(capacities):
                if self._examine is not None:
                    examined = self._examine(names, arrays)
                stock = self._stock(key, names, arrays, note, outside, capacities, examined)
            block = self.another(stock)
            if block is not None:
                return block

    def _stock(self, key, names, arrays, note, outside, capacities, examined):
        with self._lock:
            stock = self._stocks.get(key)
            if stock is not None:
                if stock.plan.holds(capacities):
                    return stock  # another thread was quicker
                self._retire(stock)
            plan = Plan.lay_out(self._next_id, names, arrays, note, outside, capacities)
            self._next_id += 1
            stock = self._stocks[key] = Stock(key, plan, examined, self._turns(plan.size))
            if len(self._stocks) > _PLANS:
                self._retire_oldest(stock)
            return stock

    def _one_of_few(self, stock):
        """A block, though fewer wait than are to take turns."""
        try:
            return stock.free.pop(0)
        except IndexError:
            return self._make(stock)

    def _make(self, stock):
        with self._lock:
            size = stock.plan.size
            extent = self.arena.find(size)
            if extent is None:
                self._empty_idle()
                try:
                    extent = self.arena.allocate(size)
                except NoRoom:
                    self._short = True
                    self.trim()
                    extent = self.arena.allocate(size)
            stock.made += 1
            return Block(stock, extent)

    def _widen(self, stock):
        # With the second message of a signature: many never come again.
        with self._lock:
            if not stock.made or not stock.narrow or stock.retired:
                return
            stock.widened(True)  # first: it is tried once
            size = stock.plan.size
            missing = 0 if self._short else stock.turns - stock.made
            while missing > 0:
                extent = self.arena.find(size)
                if extent is None:
                    self._empty_idle()
                    try:
                        self.arena.widen(size * missing)
                    except NoRoom:
                        return
                    continue
                stock.made += 1
                missing -= 1
                stock.free.insert(0, Block(stock, extent))

    def _empty_idle(self):
        # Signatures come and go. What was not used since memory last ran short goes back, so that the arena does not grow with each
        # new one; of those in use none loses its blocks.
        for stock in list(self._stocks.values()):
            if stock.used:
                stock.used = False
            else:
                self._empty(stock)

    def _retire_oldest(self, newest):
        # A plan may go only when all its blocks are back: then no record names it, on neither side. Used since the last
        # search means a second chance.
        for stock in list(self._stocks.values()):
            if stock is newest:
                continue
            if stock.used:
                stock.used = False
            elif len(stock.free) == stock.made:
                self._retire(stock)
                return

    def _retire(self, stock):
        stock.retired = True
        del self._stocks[stock.key]
        if self._last is stock:
            self._last = None
        self._leaving.append(stock)
        self._empty(stock)

    def _empty(self, stock):
        with self._lock:
            while stock.free:
                try:
                    block = stock.free.pop()
                except IndexError:  # another thread took it, and brings it back
                    return
                self.arena.free(block.extent)
                stock.made -= 1
            stock.widened(stock.turns == 1)
