"""What fails raises, in `opexec.neuropod`, what programs written for Neuropod catch, and is opexec's own error all the same."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import errors
from opexec.neuropod.errors import also
from opexec.neuropod.loader import NeuropodExecutor, load_neuropod
from tests.failures import ONE_OF_EACH
from tests.neuropods import FIVE, packaged, spec

FAILING = """
    import os
    import threading

    def get_model(data_path):
        def model(x):
            what = int(x[0])
            if what == 1:
                raise KeyError("as it was asked to")
            if what == 2:
                os._exit(3)
            if what == 3:
                threading.Event().wait()
            return {"out": x[1:]}

        return model
    """


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged(
        tmp_path_factory.mktemp("failing"),
        FAILING,
        input_spec=[spec("x", "n")],
        output_spec=[spec("out", "n")],
    )


@pytest.fixture(scope="module")
def neuropod(failing: Path) -> Iterator[NeuropodExecutor]:
    with load_neuropod(failing) as loaded:
        yield loaded


def asking(what: int) -> dict[str, Any]:
    return {"x": np.full(2, what, np.float32)}


@pytest.mark.parametrize("kinds", [(RuntimeError,), (ValueError, RuntimeError)], ids=["one", "two"])
@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_nothing_of_an_error_is_lost(error: errors.OpexecError, kinds: tuple[type[Exception], ...]) -> None:
    cause, before = OSError("the cause"), KeyError("before")
    error.__cause__, error.__context__ = cause, before
    try:
        raise error
    except errors.OpexecError as raised:
        made = also(raised, *kinds)
    assert isinstance(made, type(error)) and all(isinstance(made, kind) for kind in kinds)
    for each in (made, pickle.loads(pickle.dumps(made))):
        assert type(each) is type(made) and type(each).__name__ == type(error).__name__
        assert (str(each), each.args) == (str(error), error.args)
        assert each.__dict__.keys() == error.__dict__.keys()
    assert made.__dict__ == error.__dict__
    assert (made.__cause__, made.__context__) == (cause, before)
    assert made.__traceback__ is error.__traceback__ is not None


# ---- calls


@pytest.mark.parametrize(
    "inputs, kind, message",
    [
        ({"bogus": FIVE}, opexec.SpecError, "'bogus'"),
        ({"x": FIVE.astype(np.int32)}, opexec.SpecError, "'x'"),
        (asking(0), opexec.SpecError, "output 'out'"),
        (asking(1), opexec.ModelError, "the model raised KeyError: 'as it was asked to'"),
    ],
    ids=["name", "dtype", "output", "model"],
)
def test_a_failing_call(
    inputs: dict[str, Any], kind: type[Exception], message: str, neuropod: NeuropodExecutor
) -> None:
    async def awaited() -> Any:
        return await neuropod.infer_async(inputs)

    calls: list[Callable[[], Any]] = [lambda: neuropod.infer(inputs), lambda: asyncio.run(awaited())]
    for call in calls:
        with pytest.raises(RuntimeError, match=message) as caught:
            call()
        assert isinstance(caught.value, kind)
        if isinstance(caught.value, opexec.ModelError):
            assert caught.value.type == "KeyError" and "in model" in caught.value.traceback


def test_a_call_that_the_worker_does_not_survive(failing: Path) -> None:
    with load_neuropod(failing) as loaded:
        with pytest.raises(RuntimeError) as caught:
            loaded.infer(asking(2))
        assert isinstance(caught.value, opexec.WorkerDied) and caught.value.exit_code == 3
    with pytest.raises(RuntimeError) as caught:
        loaded.infer(asking(1))
    assert isinstance(caught.value, opexec.ModelClosed)


def test_a_call_that_takes_too_long(failing: Path) -> None:
    with load_neuropod(failing, timeout=0.2, grace=None) as loaded:
        with pytest.raises(RuntimeError) as caught:
            loaded.infer(asking(3))
    assert isinstance(caught.value, opexec.CallTimeout) and isinstance(caught.value, TimeoutError)


def test_opexec_raises_its_own_alone(failing: Path) -> None:
    with opexec.load(failing) as model:
        for inputs, kind in ((asking(1), opexec.ModelError), ({"bogus": FIVE}, opexec.SpecError)):
            with pytest.raises(kind) as caught:
                model.infer(inputs)
            assert not isinstance(caught.value, RuntimeError)
    with pytest.raises(opexec.LoadError) as caught_load:
        opexec.load(failing.with_name("nothing"))
    assert not isinstance(caught_load.value, RuntimeError)


# ---- loading and packaging


def test_a_package_that_cannot_be_loaded(tmp_path: Path) -> None:
    def raised(path: Path, **options: Any) -> RuntimeError:
        with pytest.raises(RuntimeError) as caught:
            load_neuropod(path, **options)
        return caught.value

    assert isinstance(raised(tmp_path / "nothing"), opexec.PackageError)
    (tmp_path / "broken.zip").write_bytes(b"PK\3\4 and no more")
    assert isinstance(raised(tmp_path / "broken.zip"), opexec.PackageError)
    path = packaged(tmp_path, "def get_model(data_path):\n    raise OSError('no such weights')\n")
    found = raised(path)
    assert isinstance(found, opexec.LoadError) and found.stage == "load"
    assert "OSError: no such weights" in str(found)
    missing = raised(packaged(tmp_path / "other", platform_version_semver="99.0.0"))
    assert isinstance(missing, opexec.FrameworkNotFound)
    assert isinstance(raised(path, env="no such environment"), opexec.BuildError)


@pytest.mark.parametrize(
    "changes, kind, message",
    [
        ({"platform_version_semver": "a.b.c"}, opexec.PackageError, "platform_version_semver"),
        ({"platform_version_semver": "0.0.1"}, opexec.FrameworkNotFound, "'0.0.1'"),
        ({"entrypoint": "no_such_function"}, opexec.LoadError, "no_such_function"),
        ({"test_input_data": {"x": FIVE.astype("int8")}}, Exception, "input 'x'"),
        ({"test_expected_out": {"out": FIVE}}, None, "output 'out'"),
    ],
    ids=["range", "version", "load", "input", "answer"],
)
def test_what_is_not_packaged(
    changes: dict[str, Any], kind: type[Exception] | None, message: str, tmp_path: Path
) -> None:
    """A ValueError, as Neuropod's documentation says, and, if it is no wrong answer, the RuntimeError that it raises."""
    with pytest.raises(ValueError, match=message) as caught:
        packaged(
            tmp_path, **{"test_input_data": {"x": FIVE, "y": FIVE}, "persist_test_data": False, **changes}
        )
    if kind is not None:
        assert isinstance(caught.value, kind) and isinstance(caught.value, RuntimeError)
    assert [path.name for path in tmp_path.iterdir()] == ["model_code"]
