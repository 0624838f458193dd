"""What `load` takes, and what it says of that which cannot be loaded."""

from __future__ import annotations

import gc
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec import BuildError, Environment, LoadError, SpecError, TensorSpec, WorkerDied
from tests.loaded import MODELS, PYTHONS, interpreter, source


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("/nonexistent/model.py:f", "there is no file /nonexistent/model.py"),
        ("/nonexistent/model.onnx", "there is no file /nonexistent/model.onnx"),
        (str(MODELS), "a Python file needs the name of its factory"),
        (str(MODELS.parent), "is a folder"),
        (f"{MODELS}:not a name", "expected the name of a factory after the colon"),
        ("nothing", "received 'nothing', which is neither a file nor of that form"),
        ("", f"{os.getcwd()} is a folder"),
        (5, "received an object of type int"),
        (None, "received an object of type NoneType"),
    ],
)
def test_a_source_that_is_not_understood(isolation: str, what: Any, words: str) -> None:
    with pytest.raises(LoadError) as caught:
        opexec.load(what, isolation=isolation)
    assert words in str(caught.value) and caught.value.stage == "source"


LOAD_ERRORS = {
    "raising_factory": [
        "models.OutOfOrder: the weights are gone",
        'raise OutOfOrder("the weights are gone")',
    ],
    "exiting_factory": ["SystemExit: no more of this"],
    "no_callable": ["returned an object of type int; expected a callable that takes the inputs as keywords"],
    "takes_arguments": ["takes (x); expected a factory"],
    "nothing_of_that_name": ["has no 'nothing_of_that_name'; it defines", "echo"],
    "RESULTS": ["is of type list; expected a function that returns the model"],
}


@pytest.mark.parametrize("where", [*PYTHONS, "none"])
def test_a_factory_that_fails(where: str) -> None:
    options: dict[str, Any] = {"isolation": "none"} if where == "none" else {"env": interpreter(where)}
    for factory, words in LOAD_ERRORS.items():
        with pytest.raises(LoadError) as caught:
            opexec.load(source(factory), **options)
        message = str(caught.value)
        assert caught.value.stage == "load"
        for word in [f"{MODELS}:{factory} could not be loaded by the python platform in ", *words]:
            assert word in message, f"{word!r} is not in: {message}"
    with opexec.load(source("echo"), **options) as model:
        assert model.infer({"x": np.ones(1)})["x"] == 1


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_files_and_modules_that_cannot_be_imported(tmp_path: Path, isolation: str) -> None:
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "lacking.py").write_text("import no_such_package_at_all\n")
    for what, words in [
        (f"{tmp_path}/broken.py:f", "SyntaxError"),
        (f"{tmp_path}/lacking.py:f", "No module named 'no_such_package_at_all'"),
        (
            "no_such_package_at_all.models:f",
            "has no module 'no_such_package_at_all': install it in that environment",
        ),
        ("json:dumps", "expected a factory: a function that needs no arguments"),
    ]:
        with pytest.raises(LoadError, match=words):
            opexec.load(what, isolation=isolation)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the message is that of onnxruntime, an extra")
    (tmp_path / "model.onnx").write_bytes(b"no such thing")
    for isolation in ("process", "none"):
        with pytest.raises(
            LoadError, match=r"model\.onnx could not be loaded by the onnx platform"
        ) as caught:
            opexec.load(tmp_path / "model.onnx", isolation=isolation)
        assert caught.value.stage == "load"


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_an_interpreter_that_is_none(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    for env, words in [
        ("/nonexistent/python", "/nonexistent/python"),
        (plain, "plain"),
        (tmp_path, str(tmp_path)),
        (script(tmp_path / "no-python", "#!/bin/sh\nexit 3\n"), "no-python"),
        ("/bin/true", "/bin/true"),
    ]:
        with pytest.raises((BuildError, LoadError)) as caught:
            opexec.load(source("echo"), env=env)
        assert words in str(caught.value) and "xpected" in str(caught.value)


def test_an_interpreter_without_numpy(tmp_path: Path) -> None:
    import subprocess

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(LoadError, match="numpy") as caught:
        opexec.load(source("echo"), env=tmp_path / "bare")
    assert str(tmp_path / "bare") in str(caught.value) and "install numpy in that environment" in str(
        caught.value
    )
    assert caught.value.stage == "handshake"


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"isolation": "thread"}, ValueError, "isolation is 'thread'; expected 'process' or 'none'"),
        ({"wait": "sleepy"}, ValueError, "wait is 'sleepy'; expected one of"),
        ({"timeout": 0}, ValueError, "timeout is 0; expected a positive number of seconds"),
        ({"timeout": -1.5}, ValueError, "timeout is -1.5"),
        ({"timeout": "5"}, ValueError, "timeout is '5'"),
        ({"timeout": float("nan")}, ValueError, "timeout is nan"),
        ({"shm_limit": "much"}, ValueError, "a size is 'much'"),
        ({"shm_limit": -1}, ValueError, "a size is -1"),
        ({"env": 5}, TypeError, "env is of type int; expected an Environment"),
        ({"inputs": "x"}, SpecError, "the input specs must be a list"),
        ({"inputs": [5]}, SpecError, "a spec is a TensorSpec or a dict"),
        ({"outputs": [{"name": "y"}]}, SpecError, "a spec is a TensorSpec or a dict"),
        ({"inputs": [TensorSpec("x", "f4", None)] * 2}, SpecError, "two input specs are named 'x'"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
    ids=str,
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        opexec.load(source("echo"), **arguments)


def test_requirements_that_cannot_be_met() -> None:
    for environment, words in [
        (Environment("2.7", ["numpy"]), "2.7"),
        (Environment("99.1", ["numpy"]), "99.1"),
    ]:
        with pytest.raises(BuildError, match=words):
            opexec.load(source("echo"), env=environment)


def test_what_could_not_be_loaded_leaves_nothing_behind() -> None:
    def fail(factory: str, kind: type[Exception]) -> None:
        with pytest.raises(kind):
            opexec.load(source(factory))

    fail("raising_factory", LoadError)
    before = descriptors()
    for _ in range(3):
        fail("raising_factory", LoadError)
        fail("exit_while_loading", WorkerDied)
        fail("nothing_of_that_name", LoadError)
    assert descriptors() <= before


def test_a_model_that_was_loaded_and_closed_leaves_nothing_behind() -> None:
    def once() -> None:
        with opexec.load(source("echo")) as model:
            model.infer({"x": np.ones(3 << 17)})
            model.submit({"x": np.ones(3)}).result()

    once()
    wait_for_threads()
    before = descriptors()
    for _ in range(3):
        once()
    wait_for_threads()
    assert descriptors() <= before


def wait_for_threads() -> None:
    """Until the threads that completed Futures are gone: each stays for a second, and holds what it needs until then."""
    for thread in threading.enumerate():
        if thread.name.startswith("opexec-collector"):
            thread.join()


def test_one_argument_switches() -> None:
    specs = {
        "inputs": [TensorSpec("x", "float64", ["n"])],
        "outputs": [{"name": "y", "dtype": "float64", "shape": ["n"]}],
    }
    with (
        opexec.load(source("double"), **specs) as there,
        opexec.load(source("double"), isolation="none", **specs) as here,
    ):
        assert there.inputs == here.inputs and there.outputs == here.outputs
        assert (there.name, there.platform) == (here.name, here.platform)
        assert here.workers[0].pid == os.getpid() != there.workers[0].pid
        x = np.arange(5.0)
        np.testing.assert_array_equal(there(x)["y"], here(x)["y"])


def test_env_may_name_an_interpreter_in_every_way() -> None:
    with (
        opexec.load(source("echo"), env=sys.executable) as by_path,
        opexec.load(source("echo"), env=sys.prefix) as by_folder,
    ):
        assert (
            by_path.workers[0].python == by_folder.workers[0].python == "{}.{}.{}".format(*sys.version_info)
        )
        assert by_path.infer({"x": np.ones(1)})["x"] == by_folder.infer({"x": np.ones(1)})["x"] == 1


@pytest.mark.slow
def test_two_versions_side_by_side() -> None:
    with opexec.load(source("echo"), env=interpreter("3.7")) as old, opexec.load(source("echo")) as new:
        assert old.workers[0].python.startswith("3.7.") and old.workers[0].numpy.startswith("1.")
        assert (
            new.workers[0].python == "{}.{}.{}".format(*sys.version_info)
            and new.workers[0].numpy == np.__version__
        )
        x = np.arange(7)
        np.testing.assert_array_equal(old(x), new(x))
