"""What a model gives lies in shared memory and is the caller's for as long as anything looks at it; then the memory is used again."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import select
import signal
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import Model, TensorSpec
from opexec.ipc.turns import blocks_in_turn
from tests.loaded import PYTHONS, interpreter, source
from tests.models import in_a_segment

SHAPE = (8, 32, 64)  # 128 KiB of float64: too large for any shortcut

WAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "itself": lambda array: array,
    "a slice": lambda array: array[2:5],
    "a strided slice": lambda array: array[::2, 1::3],
    "a row": lambda array: array[3],
    "a row of a row": lambda array: array[3][4],
    "T": lambda array: array.T,
    "swapaxes": lambda array: array.swapaxes(0, 2),
    "reshape": lambda array: array.reshape(-1, 16),
    "ravel": lambda array: array.ravel(),
    "flat": lambda array: array.flat,
    "view": lambda array: array.view(np.uint8),
    "view of a subclass": lambda array: array.view(np.recarray),
    "real": lambda array: array.real,
    "diagonal": lambda array: array.diagonal(),
    "broadcast_to": lambda array: np.broadcast_to(array, (2, *array.shape)),
    "sliding window": lambda array: np.lib.stride_tricks.sliding_window_view(array, 3, axis=0),
    "as_strided": lambda array: np.lib.stride_tricks.as_strided(array, (4, 4), (8, 16)),
    "split": lambda array: np.split(array, 4),
    "memoryview": memoryview,
    "cast memoryview": lambda array: memoryview(array).cast("B")[1000:],
    "frombuffer": lambda array: np.frombuffer(array, np.float32),
    "asarray of a memoryview": lambda array: np.asarray(memoryview(array)),
    "from_dlpack": np.from_dlpack,
    "array interface": lambda array: np.asarray(_Interface(array)),
    "an iterator": iter,
    "part of a structure": lambda array: [{"deep": (array[1],)}],
}


class _Interface:
    def __init__(self, array: np.ndarray) -> None:
        self.array, self.__array_interface__ = array, array.__array_interface__


def content(kept: Any) -> Any:
    """The bytes that can be seen through it, an iterator's too."""
    if isinstance(kept, np.ndarray):
        return kept.tobytes()
    if isinstance(kept, memoryview):
        return kept.tobytes()
    if isinstance(kept, np.flatiter):
        return kept.copy().tobytes()
    if isinstance(kept, list | tuple):
        return [content(one) for one in kept]
    if isinstance(kept, dict):
        return {key: content(one) for key, one in kept.items()}
    return [content(one) for one in copy.copy(kept)]


@pytest.fixture(scope="module", params=PYTHONS)
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    with opexec.load(source("double"), env=interpreter(request.param)) as model:
        yield model


def ask(model: Model, start: float) -> np.ndarray:
    """An output of SHAPE, made of numbers of its own."""
    return model.infer({"x": np.arange(start, start + np.prod(SHAPE)).reshape(SHAPE)})["y"]


def settle(model: Model) -> None:
    """Two more calls: by then the model has been told what nobody looks at any more."""
    gc.collect()
    for _ in range(3):
        model.infer({"x": np.zeros(1)})


def places_of_the_next(model: Model, held: int = 0) -> set[int]:
    """Where outputs of SHAPE come to lie, of so many that all free memory for such is among it while `held` others are held."""
    outputs = [ask(model, 0) for _ in range(200 - held)]  # more than take turns
    return {address(output) for output in outputs}


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.fixture(scope="module")
def derived(model: Model) -> dict[str, tuple[Any, Any, int]]:
    """Of each way what it derives from an output that is dropped, what could be seen through it then, and where that output lay.

    A thousand calls have been made since.
    """
    kept = {}
    for number, (way, derive) in enumerate(WAYS.items()):
        output = ask(model, number)
        one = derive(output)
        kept[way] = one, content(one), address(output)
        del output, one
    gc.collect()
    other = np.full(SHAPE, -1.0)
    for number in range(1000):
        model.infer({"x": other if number < 30 else np.array(number)})
    return kept


@pytest.mark.parametrize("way", WAYS)
def test_what_is_derived_from_an_output_outlives_it_and_a_thousand_calls(
    model: Model, derived: dict[str, tuple[Any, Any, int]], way: str
) -> None:
    kept, before, where = derived.pop(way)
    assert content(kept) == before
    assert where not in places_of_the_next(model, len(derived) + 1)
    settle(model)
    held = model.stats().blocks_held
    del kept
    settle(model)
    assert model.stats().blocks_held == held - 1
    assert where in places_of_the_next(model, len(derived)), "its memory is used again"


@pytest.mark.torch
def test_the_same_with_torch(model: Model) -> None:
    import torch

    output = ask(model, 1)
    where, before = address(output), output.tobytes()
    derived: dict[str, Any] = {
        "from_numpy": torch.from_numpy(output),
        "from_numpy of a part": torch.from_numpy(output[2:3]),
        "view": torch.from_numpy(output).view(-1),
        "from_dlpack": torch.from_dlpack(output),
        "frombuffer": torch.frombuffer(memoryview(output), dtype=torch.float64),
        "numpy again": torch.from_numpy(output).T.numpy(),
    }
    del output
    while derived:
        for kept in derived.values():
            pointer = address(kept) if isinstance(kept, np.ndarray) else kept.data_ptr()
            assert where <= pointer < where + len(before)
        for number in range(1000):
            model.infer({"x": np.array(number)})
        assert where not in {address(ask(model, -7)) for _ in range(50)}
        if "from_numpy" in derived:
            assert derived["from_numpy"].numpy().tobytes() == before
        del kept
        derived.popitem()
    settle(model)
    assert where in places_of_the_next(model)


@pytest.mark.torch
def test_torch_in_torch_out_holds_the_memory_too(model: Model) -> None:
    import torch

    output = model.infer({"x": torch.arange(40000.0)})["y"]
    assert isinstance(output, torch.Tensor)
    where, part = output.data_ptr(), output[10:20]
    del output
    for _ in range(1000):
        model.infer({"x": np.zeros(1)})
    assert where not in {model.infer({"x": torch.zeros(40000)})["y"].data_ptr() for _ in range(50)}
    assert part.tolist() == [2.0 * number for number in range(10, 20)]


def test_outputs_of_one_call_are_held_together_and_each_by_itself() -> None:
    with opexec.load(source("echo")) as model:
        inputs = {"a": np.arange(30000.0), "b": -np.arange(30000.0), "t": np.array(["text"], object)}
        first = model.infer(inputs)
        places = {name: address(first[name]) for name in "ab"}
        a, text = first.pop("a"), first.pop("t")
        kept = a[5:10]
        del first, a
        for _ in range(1000):
            again = model.infer(inputs)
            assert address(again["a"]) != places["a"]
        assert kept.tolist() == [5, 6, 7, 8, 9] and text.tolist() == ["text"]
        del again, kept
        settle(model)
        assert model.stats().blocks_held <= 1
        outputs = [model.infer(inputs) for _ in range(40)]  # more than take turns
        assert places["a"] in {address(output["a"]) for output in outputs}


def test_texts_hold_no_shared_memory() -> None:
    with opexec.load(source("echo")) as model:
        texts = [model(np.array(["text", str(number)], object)) for number in range(100)]
        settle(model)
        assert model.stats().blocks_held <= 1
        assert [array[1] for array in texts] == [str(number) for number in range(100)]


def test_outputs_that_nobody_looks_at_cost_nothing(model: Model) -> None:
    x = np.ones(SHAPE)
    few = max(3, 1 + blocks_in_turn(x.nbytes))
    for _ in range(10 + few):
        model.infer({"x": x})
    before = model.stats().shared_memory
    places = {address(model.infer({"x": x})["y"]) for _ in range(1000)}
    assert len(places) <= few and model.stats().shared_memory == before


def test_an_output_is_writable_and_the_callers_own(model: Model) -> None:
    first, second = ask(model, 0), ask(model, 0)
    assert first.flags.writeable
    first[...] = -1
    assert second[0, 0, 1] == 2 and ask(model, 0)[0, 0, 1] == 2
    again = model.infer({"x": first})["y"]  # an output as the next input
    assert not np.shares_memory(again, first) and (again == -2).all()


# ---- where things lie


def test_inputs_and_outputs_lie_in_shared_memory() -> None:
    with opexec.load(source("addresses")) as model, opexec.load(source("double")) as doubling:
        x = model.empty("x", (100, 100), np.float64)
        assert in_a_segment(address(x), x.nbytes)
        inputs = {"x": x, "slice": x[3:50], "copied": np.ones(10), "big": np.ones(100_000), "row": x[99]}
        for _ in range(2):
            found = model.infer(inputs)
            for name, array in found.items():
                assert array[1] == 1, f"the model sees {name} elsewhere"
        # In the worker, too, the slice lies as far behind the whole as here.
        assert found["slice"][0] - found["x"][0] == 3 * 100 * 8
        assert found["row"][0] - found["x"][0] == 99 * 100 * 8
        assert all(number % 64 == 0 for number in (found["copied"][0], found["big"][0], found["x"][0]))
        y = doubling.infer({"x": np.ones(100_000)})["y"]
        assert in_a_segment(address(y), y.nbytes) and address(y) % 64 == 0


@pytest.mark.parametrize("end", ["killed", "closed", "restarted"])
def test_arrays_stay_good_when_the_worker_is_gone(end: str) -> None:
    model = opexec.load(source("double"), restart=False)
    x = model.empty("x", SHAPE, np.float64)
    x[...] = np.arange(x.size).reshape(SHAPE)
    output = model.infer({"x": x})["y"]
    places = address(x), address(output)
    expected = x.tobytes(), (np.arange(x.size) * 2.0).tobytes()
    part = output[3:, ::2]
    if end == "killed":
        pidfd = os.pidfd_open(model.workers[0].pid)
        os.kill(model.workers[0].pid, signal.SIGKILL)
        select.select([pidfd], [], [])
        os.close(pidfd)
        with pytest.raises(opexec.WorkerDied):
            model.infer({"x": x})
    elif end == "restarted":
        model.restart()  # type: ignore[attr-defined]
    if end != "restarted":
        model.close()
    assert (address(x), address(output)) == places
    assert in_a_segment(address(x), x.nbytes) and in_a_segment(address(output), output.nbytes)
    assert (x.tobytes(), output.tobytes()) == expected
    x += 1
    output += 1
    np.testing.assert_array_equal(output, 2 * (x - 1) + 1)
    del model
    gc.collect()
    np.testing.assert_array_equal(part, output[3:, ::2])
    assert in_a_segment(*places[1:], output.nbytes)
    if end != "restarted":
        del output, part
        gc.collect()
        assert not in_a_segment(places[1], x.nbytes), "unmapped with the last of them"


def test_a_model_that_is_dropped_leaves_nothing_but_what_is_held() -> None:
    def load_and_drop() -> tuple[np.ndarray, int]:
        model = opexec.load(source("double"))
        output = ask(model, 5)
        model.submit({"x": np.zeros(1)}).result()
        return output, os.pidfd_open(model.workers[0].pid)

    with opexec.load(source("double")):
        pass  # some descriptors are made with the first model and stay
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        output, pidfd = load_and_drop()
        # A model and its parts refer to each other; the thread that completed the Future may do so for a second more.
        while not select.select([pidfd], [], [], 0.05)[0]:
            gc.collect()
        os.close(pidfd)
        assert output[0, 0, 0] == 10
        del output
    while len(os.listdir("/proc/self/fd")) > before:
        gc.collect()


# ---- arrays from `empty`


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_written_into_an_array_of_empty_is_seen_and_nothing_is_copied(python: str) -> None:
    with opexec.load(source("total"), env=interpreter(python)) as model:
        x = model.empty("x", (1000, 3), np.float64)
        x[...] = 1
        assert model.infer({"x": x})["sum"] == 3000
        copied = model.stats().bytes_copied_in
        for number in range(1, 50):
            x[...] = number
            assert model.infer({"x": x})["sum"] == 3000 * number
            x[100:200] = 0
            assert model(x=x)["sum"] == 2700 * number
            assert model.infer({"x": x[150:300]})["sum"] == 300 * number
            assert model.submit({"x": x[0]}).result()["sum"] == 3 * number
            assert model.infer({"x": x.reshape(3, 1000)[2]})["sum"] == 1000 * number
            assert model.infer({"x": x.view(np.uint64)[:1].view(np.float64)})["sum"] == 3 * number
        assert model.stats().bytes_copied_in == copied
        # What does not lie there as it is to be sent is copied, and right.
        assert model.infer({"x": x.T})["sum"] == x.sum()
        assert model.infer({"x": x[::2]})["sum"] == x[::2].sum()
        assert model.stats().bytes_copied_in == copied + x.nbytes + x[::2].nbytes


def test_arrays_of_empty_that_are_sent_again_are_told_from_others_in_their_place() -> None:
    with opexec.load(source("echo")) as model:

        def sent(**arrays: np.ndarray) -> int:
            """How many bytes are copied of a call with these arrays, which are to come back as they are."""
            before = model.stats().bytes_copied_in
            back = model.infer(arrays)
            assert {name: array.tobytes() for name, array in back.items()} == {
                name: array.tobytes() for name, array in arrays.items()
            }
            assert all(
                array.dtype == arrays[name].dtype and array.shape == arrays[name].shape
                for name, array in back.items()
            )
            return model.stats().bytes_copied_in - before

        x, y, z = (model.empty(name, (4, 4), np.float32) for name in "xyz")
        for number, array in enumerate((x, y, z)):
            array[...] = np.arange(16).reshape(4, 4) + 100 * number
        assert sent(x=x, y=y) == sent(x=x, y=y) == sent(x=y, y=x) == sent(x=y, y=x) == 0
        assert sent(x=x, y=z) == sent(x=x, y=x) == sent(x=x) == sent(x=z) == 0
        assert sent(x=x, y=y) == 0
        assert sent(x=x, y=y.copy()) == y.nbytes, "a copy of an array that was sent before in its place"
        assert sent(x=x, y=y) == 0
        assert sent(x=x, y=y[::-1]) == y.nbytes
        y.dtype = np.dtype(np.int32)
        assert sent(x=x, y=y) == sent(x=x, y=y) == 0
        y.shape = (2, 8)
        assert sent(x=x, y=y) == sent(x=x, y=y) == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            y.strides = (4, 8)
        assert sent(x=x, y=y) == sent(x=x, y=y) == y.nbytes
        kept = z.copy()
        assert sent(x=z) == 0
        del x, y, z
        with pytest.raises(opexec.SpecError, match="'x'"):
            model.infer({"x": None})
        for _ in range(3):  # in the memory of those, and perhaps with their ids
            again = model.empty("x", (4, 4), np.float32)
            again[...] = kept
            assert sent(x=again) == sent(x=again) == 0
            del again


@pytest.mark.parametrize("dtype", ["bfloat16", "M8[ns]", "m8[s]", "float16", "complex64", "V3", "bool"])
def test_views_of_any_dtype_are_taken_and_those_of_empty_not_copied(dtype: str) -> None:
    with opexec.load(source("echo")) as model:
        x = model.empty("x", (3, 1 << 14), dtype)
        x.view(np.uint8)[...] = np.arange(x.nbytes // 3) % 2
        for given, copied in ((x[1:], 0), (x[0][16:32], 0), (x.copy()[1:], x[1:].nbytes)):
            before = model.stats().bytes_copied_in
            y = model(given)
            assert y.dtype == x.dtype and y.tobytes() == given.tobytes()
            assert model.stats().bytes_copied_in - before == copied


@pytest.mark.parametrize("aligned", [False, True])
def test_a_slice_of_empty_is_copied_only_for_a_platform_that_wants_it_on_64_bytes(aligned: bool) -> None:
    with opexec.load(source("aligned_addresses" if aligned else "addresses")) as model:
        x, large = model.empty("x", (8, 4), np.float32), model.empty("large", (2 << 20,), np.uint8)
        inputs = {"whole": x, "small": x[1:], "large": large[48:], "on 64": large[128:]}
        ways: list[Callable[[], Any]] = [
            lambda: model.infer(inputs),
            lambda: model(**inputs),
            lambda: model.submit(inputs).result(),
            lambda: asyncio.run(model.infer_async(inputs)),
        ]
        for way in ways:
            before = model.stats().bytes_copied_in
            found = way()
            assert all(inside for _, inside in found.values())
            begins = [int(address % 64) for address, _ in found.values()]
            copied = model.stats().bytes_copied_in - before
            if aligned:
                assert (begins, copied) == ([0, 0, 0, 0], x[1:].nbytes + large[48:].nbytes)
            else:
                assert (begins, copied) == ([0, 16, 48, 0], 0)


def test_more_arrays_of_empty_than_a_record_has_room_for() -> None:
    with opexec.load(source("echo")) as model:
        arrays = {f"x{index}": model.empty(f"x{index}", (513,), np.int64) for index in range(40)}
        for count in (7, 8, 9, 40):
            for number in range(3):
                for index, array in enumerate(arrays.values()):
                    array[...] = index + number
                inputs = dict(list(arrays.items())[:count])
                inputs["copied"] = np.array(number)
                before = model.stats().bytes_copied_in
                results = model.infer(inputs)
                assert model.stats().bytes_copied_in - before == inputs["copied"].nbytes
                assert [int(array.flat[0]) for array in results.values()] == [
                    *range(number, number + count),
                    number,
                ]


def test_small_arrays_of_empty_are_copied_where_there_are_more_than_a_record_has_room_for() -> None:
    with opexec.load(source("echo")) as model:
        small = {f"x{index}": model.empty(f"x{index}", (512,), np.int64) for index in range(9)}
        large = {"large": model.empty("large", (513,), np.int64)}
        few = dict(list(small.items())[:8])
        for inputs, copied in (
            (small, 9 * 4096),
            (few, 0),
            ({**small, **large}, 9 * 4096),
            ({**few, **large}, 8 * 4096),
            ({**small, "x3": np.arange(512)}, 9 * 4096),
            # The same names and dtypes, one of another size: nothing that was found out before applies to it.
            ({**small, "x3": large["large"]}, 8 * 4096),
        ):
            for number in range(3):
                for index, array in enumerate(inputs.values()):
                    array[...] = 100 * index + number
                before = model.stats().bytes_copied_in
                results = model.infer(inputs)
                assert model.stats().bytes_copied_in - before == copied
                assert [int(array[0]) for array in results.values()] == [
                    100 * index + number for index in range(len(inputs))
                ]


def test_parts_of_arrays_of_empty_that_are_sent_again_are_told_from_others_in_their_place() -> None:
    with opexec.load(source("echo")) as model:
        x = model.empty("x", (64, 16), np.float32)
        x[...] = np.arange(x.size).reshape(x.shape)

        def sent(array: np.ndarray) -> int:
            before = model.stats().bytes_copied_in
            np.testing.assert_array_equal(model.infer({"x": array})["x"], array)
            return model.stats().bytes_copied_in - before

        one, other = x[3:5], x[7:9]
        assert sent(one) == sent(one) == sent(other) == sent(one) == sent(x) == sent(one) == 0
        one.dtype = np.dtype(np.int32)
        assert sent(one) == sent(one) == 0
        one.shape = (4, 8)
        assert sent(one) == 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            one.strides = (4, 16)
        assert sent(one) == sent(one) == one.nbytes
        for row in range(64):  # each has the memory of the one before, and its id perhaps
            assert sent(x[row : row + 1]) == 0
        kept = [x[row : row + 1] for row in range(64) for _ in range(40)]  # more than are remembered
        for part in kept:
            assert sent(part) == 0
        remembered = model._input_memory._known  # type: ignore[attr-defined]
        assert len(remembered) <= 1024
        del one, other, part, kept
        model.empty("x", (1,), np.float32)
        assert sent(x[5:6]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # numpy would rather have views made
def test_an_array_of_empty_that_is_changed_in_place() -> None:
    with opexec.load(source("echo")) as model:
        x = model.empty("x", (2, 3), np.float64)
        x.shape = (3, 2)
        x[...] = [[1, 2], [3, 4], [5, 6]]
        for change in (
            lambda: setattr(x, "dtype", ">f8"),
            lambda: setattr(x, "dtype", np.int64),
            lambda: setattr(x, "strides", (8, 24)),
        ):
            np.testing.assert_array_equal(model.infer({"x": x})["x"], x)
            change()
            np.testing.assert_array_equal(model.infer({"x": x})["x"], x)


def test_an_array_of_empty_in_several_places_at_once() -> None:
    with opexec.load(source("echo")) as model:
        x = model.empty("x", (10,), np.int32)
        x[...] = range(10)
        results = model(a=x, b=x, c=x[5:], d=x[:0], e=x[3:4].reshape(()))
        assert [array.tolist() for array in results.values()] == [
            [*range(10)],
            [*range(10)],
            [5, 6, 7, 8, 9],
            [],
            3,
        ]


def test_memory_of_dropped_arrays_is_used_again() -> None:
    with opexec.load(source("total")) as model:
        size = (1 << 18,)
        places = set()
        for _ in range(50):
            array = model.empty("x", size, np.float64)
            places.add(address(array))
            model.infer({"x": array})
            del array
        assert len(places) <= 2
        used = model.stats().shared_memory
        part = model.empty("x", size, np.float64)[5:6]
        part[...] = 7
        for _ in range(10):
            model.empty("x", size, np.float64)[...] = 0
        assert part == 7, "held by a part of it"
        assert model.stats().shared_memory <= used + (size[0] * 8 << 2)


def test_an_array_that_a_call_still_reads_is_not_handed_out_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.models import Gate

    monkeypatch.setenv("OPEXEC_TEST_GATE", str(tmp_path))
    gate = Gate(tmp_path)
    with opexec.load(source("gated")) as model:
        x = model.empty("x", (50_000,), np.float64)
        x[...] = -3
        where = address(x)
        future = model.submit({"x": x})
        gate.wait()
        alive = weakref.ref(x)
        del x
        gc.collect()
        others = [model.empty("x", (50_000,), np.float64) for _ in range(5)]
        for other in others:
            assert address(other) != where
            other[...] = 8
        assert alive() is not None
        gate.let()
        assert (future.result()["y"] == -30).all()
        del others, other
        model.infer({"x": np.zeros(1)})
        assert where in {address(model.empty("x", (50_000,), np.float64)) for _ in range(50)}
    gate.close()


def test_empty_keeps_to_the_spec() -> None:
    inputs = [
        TensorSpec("image", "uint8", [4, 6, 3]),
        TensorSpec("batch", "float32", ["n", None]),
        TensorSpec("text", "string", None),
    ]
    for isolation in ("process", "none"):
        with opexec.load(source("echo"), inputs=inputs, isolation=isolation) as model:
            assert (model.empty("image").shape, model.empty("image").dtype) == ((4, 6, 3), np.uint8)
            assert model.empty("batch", (2, 0)).shape == (2, 0)
            assert model.empty("batch", [2, np.int64(5)], "f4").flags.writeable
            for arguments, words in [
                (("image", (4, 6)), "rank must be 3, not 2"),
                (("image", (4, 6, 4)), "axis 2 must be 3, not 4"),
                (("image", None, np.int8), "expected dtype uint8, got int8"),
                (("image", None, "nonsense"), "expected a dtype"),
                (("batch",), "unbound symbol 'n'; give the shape"),
                (("batch", (-1, 2)), "cannot be negative"),
                (("batch", 5), "must be a sequence of ints"),
                (("text", (2,)), "string, whose elements have no fixed size"),
                (("picture", (2,)), "no input 'picture'; the model's inputs are 'image', 'batch', 'text'"),
            ]:
                with pytest.raises(opexec.SpecError, match=words):
                    model.empty(*arguments)
        with opexec.load(source("echo"), isolation=isolation) as model:
            assert model.empty("x", (2, 3), ">i4").dtype == np.int32
            assert str(model.empty("x", (2, 3), "bfloat16").dtype) == "bfloat16"
            assert model.empty("x", (), "f8").shape == ()
            for arguments, words in [
                (("x", (2,)), "give both shape and dtype"),
                (("x", None, "f4"), "give both shape and dtype"),
                (("x", (2,), object), "Python objects"),
                (("x", (-2,), "f4"), "cannot be negative"),
                (("x", (2.5,), "f4"), "must be a sequence of ints"),
                (("x", (2,), "nonsense"), "expected a dtype"),
            ]:
                with pytest.raises(opexec.SpecError, match=words):
                    model.empty(*arguments)
