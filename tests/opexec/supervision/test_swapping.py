"""`Model.swap`: what may take a model's place; no call fails meanwhile, and a failed swap changes nothing."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import LoadError, Model, ModelClosed, PackageError, SpecError
from opexec.loading.request import Specs
from opexec.problem import Problem
from opexec.spec import InputSpecs, TensorSpec
from opexec.supervision import swapping
from opexec.supervision.link import Link
from opexec.supervision.places import Places
from tests.loaded import in_thread, interpreter, source
from tests.opexec.packages.package_samples import manifest_of, specs, zip_of

PATIENCE = 60.0
X = np.arange(3, dtype=np.float32)


def package(
    path: Path, factor: int = 2, inputs: str = "x:n", outputs: str = "y:n", body: str = "", **config: Any
) -> Path:
    """The zip of a Python model whose outputs are all its first input times `factor`."""
    takes, gives = ([spec.to_dict() for spec in specs(side)] for side in (inputs, outputs))
    names = [spec["name"] for spec in takes]
    answer = ", ".join(f"{spec['name']!r}: {names[0]} * {factor}" for spec in gives)
    code = f"{body}\ndef make(data):\n    return lambda {', '.join(names)}: {{{answer}}}\n"
    described = {"name": path.stem, "platform": "python", "input_spec": takes, "output_spec": gives, **config}
    files = {
        "config.json": json.dumps(described).encode(),
        "0/config.json": b'{"entrypoint_package": "small.model", "entrypoint": "make"}',
        "0/code/small/__init__.py": b"",
        "0/code/small/model.py": code.encode(),
    }
    return zip_of(path, {**files, "manifest.json": manifest_of(files)})


def load(model: Path | str, **arguments: Any) -> Model:
    return opexec.load(model, timeout=PATIENCE, **arguments)


def first_answer(model: Model) -> float:
    return float(model.infer({"x": X})["y"][1])


# ---- in a worker


def test_one_zip_takes_the_place_of_another_and_no_call_fails(tmp_path: Path) -> None:
    two, three = package(tmp_path / "two.zip", 2), package(tmp_path / "three.zip", 3)
    stop, begun = threading.Event(), threading.Barrier(3)
    with load(two) as model:

        def work() -> list[float]:
            seen = [first_answer(model)]
            begun.wait(PATIENCE)
            while not stop.is_set():
                seen.append(first_answer(model))
            return [*seen, first_answer(model)]

        callers = [in_thread(work) for _ in range(2)]
        begun.wait(PATIENCE)
        old = model.workers[0].pid
        model.swap(three)
        stop.set()
        for caller in callers:
            seen = caller.result(PATIENCE)
            assert (seen[0], seen[-1]) == (2, 3) and seen == sorted(seen), (
                "once the new one answers, it always does"
            )
        (worker,) = model.workers
        assert worker.pid != old and not os.path.exists(f"/proc/{old}"), "the old one is gone"
        assert model.name == "two" and model.stats().errors == {}


def test_a_failed_swap_leaves_the_old_one_serving(tmp_path: Path) -> None:
    whole = package(tmp_path / "whole.zip")
    (tmp_path / "half.zip").write_bytes(whole.read_bytes()[:-40])
    with load(package(tmp_path / "old.zip", inputs="x:n y:m"), replicas=2) as model:
        before = [worker.pid for worker in model.workers]
        tied = package(tmp_path / "tied.zip", inputs="x:n y:n")
        with pytest.raises(SpecError, match=r"input 'y': axis 0 is m .* the same as axis 0 of 'x' \(its n\)"):
            model.swap(tied)
        with pytest.raises(PackageError, match=r"half\.zip"):
            model.swap(tmp_path / "half.zip")
        with pytest.raises(LoadError, match="ZeroDivisionError"):
            model.swap(package(tmp_path / "raising.zip", inputs="x:n y:m", body="1 / 0"))
        with pytest.raises(LoadError, match="there is no file"):
            model.swap(tmp_path / "absent.zip")
        with pytest.raises(TypeError, match="replicas"):
            model.swap(whole, replicas=3)
        assert [worker.pid for worker in model.workers] == before
        for _ in before:
            assert model.infer({"x": X, "y": X[:1]})["y"].tolist() == [0, 2, 4]
        assert model.platform == "python" and model.stats().restarts == 0


def test_close_as_the_new_ones_get_their_places_ends_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, three = package(tmp_path / "two.zip", 2), package(tmp_path / "three.zip", 3)
    model = load(two, replicas=2)
    loaded: list[Link] = []
    connect = Places.connect

    def connected(places: Places, *arguments: Any) -> Link:
        loaded.append(connect(places, *arguments))
        return loaded[-1]

    monkeypatch.setattr(Places, "connect", connected)
    monkeypatch.setattr(swapping, "check", lambda old, new: model.close())
    with pytest.raises(ModelClosed):
        model.swap(three)
    assert len(loaded) == 2 and not any(link.process.alive for link in loaded)


def test_specs_that_a_model_does_not_tell_are_given(tmp_path: Path) -> None:
    with load(package(tmp_path / "old.zip", 3)) as model:
        old = model.workers[0].pid
        with pytest.raises(SpecError, match="does not tell its inputs.* inputs=model.inputs"):
            model.swap(source("double"))
        assert model.workers[0].pid == old and first_answer(model) == 3
        model.swap(source("double"), inputs=model.inputs, outputs=model.outputs)
        assert first_answer(model) == 2 and model.workers[0].pid != old


def test_without_specs_nothing_is_compared(tmp_path: Path) -> None:
    with load(source("echo")) as model:
        model.swap(package(tmp_path / "three.zip", 3))
        assert model.infer({"x": X})["y"].tolist() == [0, 3, 6] and model.inputs is None


def test_an_answer_that_the_new_specs_leave_open_is_held_against_the_old_ones(tmp_path: Path) -> None:
    with load(package(tmp_path / "old.zip", inputs="x:n", outputs="y:3")) as model:
        model.swap(package(tmp_path / "new.zip", 3, inputs="x:?", outputs="y:?"))
        assert first_answer(model) == 3
        with pytest.raises(SpecError, match="output 'y'.* axis 0 must be 3, not 2"):
            model.infer({"x": X[:2]})


def test_what_holds_the_old_one_holds_the_new_one_too(tmp_path: Path) -> None:
    with load(source("double"), nice=3, memory_limit="4GiB", cwd=tmp_path) as model:
        old = model.workers[0]
        model.swap(source("echo"))
        new = model.workers[0]
        assert new.pid is not None and new.pid != old.pid
        assert os.getpriority(os.PRIO_PROCESS, new.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 3
        assert "RLIMIT_DATA" in new.limited_by and "RLIMIT_DATA" in old.limited_by
        assert os.readlink(f"/proc/{new.pid}/cwd") == str(tmp_path)


@pytest.mark.slow
def test_the_new_one_may_have_another_environment(tmp_path: Path) -> None:
    interpreter("3.7")  # which the package asks for too
    other = package(tmp_path / "other.zip", 3, environment={"python": "3.7", "requirements": ["numpy"]})
    with load(package(tmp_path / "old.zip")) as model:
        x = model.empty("x", (3,))
        x[...] = X
        model.swap(other)
        assert model.workers[0].python.startswith("3.7.")
        assert model.infer({"x": x})["y"].tolist() == [0, 3, 6]
        assert model.stats().bytes_copied_in == 0, "the array of the old worker's time travels as it is"


# ---- what fits


def told(text: str | None) -> tuple[TensorSpec, ...] | None:
    return None if text is None else specs(text)


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        (("x:n", "y:n"), ("x:batch", "y:batch"), None),
        (("x:3", "y:?"), ("x:n", "y:n"), None),
        (("x:n", "y:n"), ("x:n", "y:?"), None),  # left open
        ((None, None), ("x:3", "y:3"), None),
        ((None, None), (None, None), None),
        (("x:n", None), ("x:n", "more:3"), None),
        ((None, "y:n"), ("z:7", "y:n"), None),
        (("x:n y:m", "z:n"), ("x:n y:n", "z:n"), "input 'y': axis 0 is m in the problem"),
        (("x:n", "y:n"), ("x:n z:n", "y:n"), "input 'z': the model needs it"),
        (("x:n", "y:n"), ("x:n", "y:n more:1"), "output 'more': the model gives it, and"),
        (("x:n", "y:n"), (None, "y:n"), "does not tell its inputs"),
        (("x:n", "y:n"), ("x:n", None), "does not tell its outputs"),
    ],
)  # fmt: skip
def test_what_may_take_a_models_place(
    old: tuple[str | None, str | None], new: tuple[str | None, str | None], difference: str | None
) -> None:
    def compare() -> None:
        swapping.check((told(old[0]), told(old[1])), (told(new[0]), told(new[1])))

    if difference is None:
        compare()
    else:
        with pytest.raises(SpecError, match=difference):
            compare()


def test_every_difference_is_told() -> None:
    with pytest.raises(SpecError) as caught:
        swapping.check((told("x:n z:3"), told("y:n")), (told("x:3 z:4"), told("y:5 more:1")))
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == [
        "input 'x'",
        "input 'z'",
        "output 'y'",
        "output 'more'",
    ]


def test_inputs_that_a_call_may_leave_out() -> None:
    def some(text: str, *optional: str) -> Specs:
        return InputSpecs(told(text) or (), optional), told("y:n")

    swapping.check(some("x:n"), some("x:n z:3", "z"))
    swapping.check(some("x:n z:3", "z"), some("x:n z:3", "z"))
    swapping.check(some("x:n z:3"), some("x:n z:3", "z"))
    with pytest.raises(SpecError, match="input 'z': calls may leave it out, and the model needs it"):
        swapping.check(some("x:n z:3", "z"), some("x:n z:3"))
    with pytest.raises(SpecError, match="input 'z': the model needs it"):
        swapping.check(some("x:n"), some("x:n z:3"))
    assert Problem("p", told("x:n") or (), ()).check(some("x:n z:3", "z")[0], ()).proven
