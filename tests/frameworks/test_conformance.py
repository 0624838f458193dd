"""Every platform keeps the same promises, in a worker and with the framework versions that it is meant for.

conformance.py has those that are seen from within the environment of the framework; here are those of a call from another process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import opexec
from opexec.loading.formats import recognise
from tests.frameworks.conformance_runs import Groups
from tests.frameworks.environments import built
from tests.frameworks.groups import GROUPS, Group
from tests.frameworks.subject import affine, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SUBJECTS = [(group, name) for group in GROUPS for name in GROUPS[group].called]
#: Those whose models are files of a framework; the others' are code, or of a platform that only their environment knows.
OF_FILES = [name for name in GROUPS if not name.startswith(("python", "registered"))]


@pytest.fixture(scope="session")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    return Groups("conformance.py", GROUPS, tmp_path_factory.mktemp("conformance"))


@pytest.mark.parametrize("name", GROUPS)
def test_the_promises_hold_within_the_environment(name: str, groups: Groups) -> None:
    run = groups.run(name)
    assert not run.failures, "\n".join(run.failures)
    assert not run.skipped
    # Each subject goes through every test there; none may have been left out.
    assert run.passed >= 19 * len(GROUPS[name].subjects)
    assert set(run.written["subjects"]) == set(GROUPS[name].subjects)


@dataclass(frozen=True)
class Case:
    """A model to load, and what its framework answers."""

    group: Group
    about: dict[str, Any]
    answers: dict[str, np.ndarray[Any, Any]]

    def load(self, **arguments: Any) -> opexec.Model:
        return opexec.load(
            self.about["source"],
            env=built(self.group.environment),
            platform=self.about["platform"],
            options=self.about["options"],
            env_vars=self.group.env_vars,
            **arguments,
        )

    def check(self, got: Any, count: int, plus: float = 0) -> None:
        """An answer to ``rows(count) + plus``; `plus` only where the answer is a closed formula."""
        assert isinstance(got, np.ndarray)
        if self.about["exact"]:
            np.testing.assert_array_equal(got, affine(rows(count) + np.float32(plus)), strict=True)
        else:
            np.testing.assert_allclose(got, self.answers[str(count)], rtol=1e-6, atol=1e-6, strict=True)


@pytest.fixture(scope="module", params=SUBJECTS, ids="-".join)
def case(request: pytest.FixtureRequest, groups: Groups) -> Case:
    group, name = request.param
    run = groups.run(group)
    if name not in run.written["subjects"]:
        pytest.fail(f"{GROUPS[group].models} has no model {name!r} there")
    with np.load(run.folder / f"{name}.npz") as answers:
        return Case(GROUPS[group], run.written["subjects"][name], dict(answers))


@pytest.fixture(scope="module")
def model(case: Case) -> Iterator[opexec.Model]:
    # Unchecked, so that what does not fit the spec gets as far as the framework; tests/opexec has the checks.
    with case.load(check=False) as model:
        yield model


def first(result: Any) -> Any:
    """The one array in what a drop-in call gives."""
    while not isinstance(result, np.ndarray):
        (result,) = result.values() if isinstance(result, dict) else result
    return result


def empty(model: opexec.Model, case: Case, count: int) -> np.ndarray[Any, Any]:
    x = model.empty(case.about["input"], (count, 4), np.float32)
    x[...] = rows(count)
    return x


def test_it_answers_as_its_framework_does(case: Case, model: opexec.Model) -> None:
    for count in (1, 3, 8, 3):
        for x in (rows(count), empty(model, case, count)):
            case.check(first(model(x)), count)
            case.check(first(model(**{case.about["input"]: x})), count)
            results = model.infer({case.about["input"]: x})
            assert list(results) == [case.about["output"]]
            case.check(results[case.about["output"]], count)


def test_its_specs_reach_the_caller(case: Case, model: opexec.Model) -> None:
    for side in ("inputs", "outputs"):
        specs = getattr(model, side)
        assert case.about[side] == (specs and [spec.to_dict() for spec in specs])


def test_no_input_of_empty_is_copied_and_outputs_at_most_once(case: Case, model: opexec.Model) -> None:
    x = empty(model, case, 8)
    for part, count in ((x, 8), (x[:3], 3)):
        for _ in range(4):
            before = model.stats()
            y = first(model(**{case.about["input"]: part}))
            after = model.stats()
            case.check(y, count)
            assert after.bytes_copied_in == before.bytes_copied_in
            assert after.bytes_copied_out - before.bytes_copied_out <= y.nbytes


def test_a_slice_of_empty_is_copied_only_for_a_framework_that_wants_it_aligned_and_is_counted(
    case: Case, model: opexec.Model
) -> None:
    x = empty(model, case, 8)
    part = x[1:]
    assert part.__array_interface__["data"][0] % 64 == 16
    for _ in range(4):
        before = model.stats()
        y = first(model(**{case.about["input"]: part}))
        copied = model.stats().bytes_copied_in - before.bytes_copied_in
        assert copied == (part.nbytes if case.group.aligned else 0)
        np.testing.assert_allclose(y, case.answers["8"][1:], rtol=1e-6, atol=1e-6)


def test_what_is_written_into_an_input_is_seen_by_the_next_call(case: Case, model: opexec.Model) -> None:
    one, other = empty(model, case, 3), empty(model, case, 3)
    answers = []
    for x in (one, other, one, other):
        answers.append(first(model(x)))
        x[...] = rows(8)[5:]
    later = [first(model(x)) for x in (one, other)]
    for y in answers[:2]:
        case.check(y, 3)
    fresh = first(model(rows(8)[5:].copy()))
    for y in (*answers[2:], *later):
        np.testing.assert_array_equal(y, fresh, strict=True)
    np.testing.assert_array_equal(one, rows(8)[5:])


def test_outputs_that_are_held_stay_as_they_are(case: Case, model: opexec.Model) -> None:
    x = empty(model, case, 3)
    held = [first(model(x)) for _ in range(3)]
    for round in range(100):
        x[...] = round
        model(x)
    for y in held:
        case.check(y, 3)


def test_a_batch_of_no_rows(case: Case, model: opexec.Model) -> None:
    x = empty(model, case, 0)
    if case.about["empty"]:
        case.check(first(model(x)), 0)
    else:
        with pytest.raises(opexec.ModelError):
            model(x)
    case.check(first(model(rows(3))), 3)


def test_an_error_of_the_framework_leaves_the_worker_usable(case: Case, model: opexec.Model) -> None:
    before = model.workers[0]
    for _ in range(2):
        for inputs in ({case.about["input"]: case.answers["wrong"]}, {"no_such_input": rows(3)}, {}):
            with pytest.raises(opexec.ModelError) as caught:
                model.infer(inputs)
            assert caught.value.type and str(caught.value)
        case.check(first(model(rows(3))), 3)
    assert model.workers[0] == before and before.state == "ready"


@pytest.mark.parametrize("name", OF_FILES)
def test_a_file_that_cannot_be_read_is_a_load_error(name: str, groups: Groups) -> None:
    # One of them; conformance.py has looked at what each platform says to the others.
    framework, platform, source, options = next(iter(groups.run(name).written["bad"].values()))
    with pytest.raises(opexec.LoadError, match=rf"{framework} \d") as caught:
        opexec.load(
            source,
            env=built(GROUPS[name].environment),
            platform=platform,
            options=options,
            env_vars=GROUPS[name].env_vars,
        )
    assert caught.value.stage == "load"


@pytest.mark.parametrize("name", OF_FILES)
def test_load_knows_the_file_whatever_it_is_called(name: str, groups: Groups, tmp_path: Path) -> None:
    subjects = groups.run(name).written["subjects"].values()
    files = [about for about in subjects if os.path.exists(about["source"])]  # not those with a factory
    assert files
    for about in files:
        for called in ("anything", "model.json", "model.pt2"):
            renamed = tmp_path / called
            renamed.unlink(missing_ok=True)
            renamed.symlink_to(about["source"])
            for path in (about["source"], str(renamed)):
                found = recognise(path)
                assert found is not None and found.platform == about["platform"], about["source"]


def sent(dtype: str) -> np.ndarray[Any, Any]:
    """An array of that dtype, of two axes. Of a float of 16 bits it has all values, but the NaNs are all one.

    (The older onnxruntime computes them with 32 bits, and what else a NaN's bits say is lost.)
    """
    if dtype == "string":
        return np.array([["gr\u00fc\u00dfe", ""], ["\U0001f600\u4e2d", "x" * 5000]], object)
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    if dtype == "bool":
        return bits % 3 == 0
    if dtype == "complex64":
        return (bits.astype(np.float32) - 1j / (bits + np.float32(1))).astype(np.complex64)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float16
    infinity, nan = np.array([np.inf, np.nan], kind).view(np.uint16)
    bits[(bits & 0x7FFF) > infinity] = nan
    return bits.view(kind)


@pytest.mark.parametrize("name", [name for name in GROUPS if GROUPS[name].called])
def test_dtypes_go_there_and_back_bit_for_bit(name: str, groups: Groups) -> None:
    echoes = groups.run(name).written["echoes"]
    assert {"bool", "float16"} <= {dtype for call in echoes["calls"] for dtype, _, _ in call}
    with opexec.load(
        echoes["source"],
        env=built(GROUPS[name].environment),
        platform=echoes["platform"],
        options=echoes["options"],
        env_vars=GROUPS[name].env_vars,
    ) as model:
        for call in echoes["calls"]:
            inputs = {name: sent(dtype) for dtype, name, _ in call}
            for _ in range(3):
                results = model.infer(inputs)
                assert sorted(results) == sorted(name for _, _, name in call)
                for dtype, given, got in call:
                    x, y = inputs[given], results[got]
                    assert (y.dtype, y.shape) == (x.dtype, x.shape)
                    if dtype == "string":
                        x = np.vectorize(str.encode, "O")(x) if echoes["texts"] == "bytes" else x
                        assert y.tolist() == x.tolist()
                    else:
                        assert y.tobytes() == x.tobytes(), dtype
