"""`infer_async` keeps the event loop from nothing, however large the inputs are."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import SpecError
from opexec.isolated import IsolatedModel
from tests.loaded import source

LARGE = np.arange(1 << 18, dtype=np.float64)


@pytest.fixture
def model() -> Any:
    with opexec.load(source("total")) as model:
        yield model


class Held:
    """Holds the copying of inputs until it is let go; `began` is set in the loop when it begins."""

    def __init__(self, model: IsolatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.began = asyncio.Event()
        loop = asyncio.get_running_loop()
        pack = model._packer.pack

        def held(*arguments: Any) -> Any:
            loop.call_soon_threadsafe(self.began.set)
            assert self.go_on.wait(60), "the event loop was kept from letting it go on"
            return pack(*arguments)

        monkeypatch.setattr(model._packer, "pack", held)


def test_the_loop_goes_on_while_a_large_input_is_copied(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        held = Held(model, monkeypatch)
        task = asyncio.create_task(model.infer_async({"x": LARGE}))
        await held.began.wait()
        held.go_on.set()
        assert (await task)["sum"] == LARGE.sum()

    asyncio.run(main())


def test_a_call_that_is_cancelled_in_the_middle_of_the_copy_leaves_nothing(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # from the second on blocks take turns
        model.infer({"x": LARGE})

    async def cancelled(patched: pytest.MonkeyPatch) -> None:
        held = Held(model, patched)
        task = asyncio.create_task(model.infer_async({"x": LARGE}))
        await held.began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.go_on.set()

    before = model.stats()
    for _ in range(40):
        with monkeypatch.context() as patched:
            asyncio.run(cancelled(patched))
    gc.collect()
    after = model.stats()
    assert after.calls == before.calls, "it was never sent"
    assert after.shared_memory == before.shared_memory, "its block came back"
    assert model.infer({"x": LARGE})["sum"] == LARGE.sum()


def test_arrays_that_are_not_copied_are_not_handed_over(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = model.empty("x", LARGE.shape, np.float64)
    x[...] = LARGE

    async def main() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", None)
        assert (await model.infer_async({"x": x}))["sum"] == LARGE.sum()
        assert (await model.infer_async({"x": LARGE[:100]}))["sum"] == LARGE[:100].sum()

    asyncio.run(main())


def test_a_large_slice_that_is_copied_to_be_aligned_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        held = Held(model, monkeypatch)
        task = asyncio.create_task(model.infer_async({"x": x[1:]}))
        await held.began.wait()
        held.go_on.set()
        assert (await task)["x"][0] % 64 == 0

    with opexec.load(source("aligned_addresses")) as loaded:
        model: Any = loaded
        x = model.empty("x", LARGE.shape, np.float64)
        asyncio.run(main())


def test_what_is_wrong_with_a_large_input_is_raised() -> None:
    spec = opexec.TensorSpec("x", "float64", (3,))
    with opexec.load(source("total"), inputs=[spec]) as model, pytest.raises(SpecError, match="x"):
        asyncio.run(model.infer_async({"x": LARGE}))
