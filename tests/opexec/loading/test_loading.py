"""What `load` takes, and what it says of that which cannot be loaded."""

from __future__ import annotations

import gc
import importlib.util
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
from opexec.loading.request import Request
from opexec.machine import devices
from tests.absent import absent
from tests.loaded import MODELS, PYTHONS, interpreter, source


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("/nonexistent/model.py:f", "there is no file /nonexistent/model.py"),
        ("/nonexistent/model.onnx", "there is no file or folder /nonexistent/model.onnx"),
        (str(MODELS), "a Python file needs the name of its factory"),
        (str(MODELS.parent), "is a folder"),
        (f"{MODELS}:not a name", "expected the name of a factory after the colon"),
        ("nothing", "received 'nothing', which is neither a file nor of that form"),
        ("nothing.zip", f"there is no file or folder {os.getcwd()}/nothing.zip"),
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
    if importlib.util.find_spec("onnxruntime") is None:  # whose message it is
        absent("onnxruntime, an extra")
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


# ---- where and with what a worker runs

PLACED = """
import os
import numpy as np


def factory():
    def model(x):
        np.dot(np.ones((500, 500)), np.ones((500, 500)))
        return {
            "threads": len(os.listdir("/proc/self/task")),
            "cores": np.array(sorted(os.sched_getaffinity(0))),
            "variables": np.array([os.environ.get(name, "unset") for name in x.tolist()], object),
        }

    return model


AT_IMPORT = sorted(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")


def at_import():
    return lambda: {"cores": np.array(AT_IMPORT[0]), "threads": AT_IMPORT[1]}
"""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "NPROC")


@pytest.fixture
def placed(tmp_path: Path) -> str:
    (tmp_path / "placed.py").write_text(PLACED)
    return f"{tmp_path}/placed.py:factory"


def variables(model: opexec.Model, *names: str) -> list[str]:
    return model.infer({"x": np.array(names, object)})["variables"].tolist()  # type: ignore[no-any-return]


NONE = np.array(["NOTHING"], object)


def test_two_models_with_one_thread_each_take_no_more(placed: str) -> None:
    """numpy's BLAS has one thread for each core otherwise."""
    with (
        opexec.load(placed, threads=1, name="one") as one,
        opexec.load(placed, threads=1, name="two") as two,
        opexec.load(placed, threads=2) as more,
    ):
        counts = [model.infer({"x": NONE})["threads"].item() for model in (one, two, more)]
        assert counts[:2] == [1, 1], "not one thread besides the model's own"
        assert counts[2] == min(2, len(os.sched_getaffinity(0)))
        assert variables(one, *THREADS) == ["1"] * 5 and variables(more, *THREADS) == ["2"] * 5
        assert variables(one, "XLA_FLAGS") == ["--xla_cpu_multi_thread_eigen=false"]


def test_a_worker_runs_on_the_cores_it_was_given_before_it_imports_anything(placed: str) -> None:
    usable = sorted(os.sched_getaffinity(0))
    at_import = placed.replace("factory", "at_import")
    for core in usable:
        with opexec.load(placed, cpus=[core]) as model, opexec.load(at_import, cpus={core}) as early:
            found = model.infer({"x": NONE})
            assert found["cores"].tolist() == [core] and found["threads"] == 1
            assert early()["cores"].tolist() == [core] and early()["threads"] == "1"
            model.restart()
            assert model.infer({"x": NONE})["cores"].tolist() == [core]
            pid = model.workers[0].pid
            for task in os.listdir(f"/proc/{pid}/task"):
                assert os.sched_getaffinity(int(task)) == {core}
    with opexec.load(placed, cpus=usable + usable[:1], threads=1) as model:
        found = model.infer({"x": NONE})
        assert found["cores"].tolist() == usable and found["threads"] == 1
    with opexec.load(placed) as model:
        assert model.infer({"x": NONE})["cores"].tolist() == usable, "the next worker is not bound"
    assert sorted(os.sched_getaffinity(0)) == usable, "nor is the caller"


@pytest.mark.parametrize("cpus", [[], [-1], ["0"], [True], 3, "01"])
def test_cores_that_are_none(cpus: Any) -> None:
    with pytest.raises(ValueError, match="cpus is .*; expected numbers of cores"):
        opexec.load(source("echo"), cpus=cpus)


@pytest.mark.parametrize("absent", [1023, 100_000, 1 << 40])
def test_cores_that_are_not_there(absent: int) -> None:
    for cpus in ([absent], [0, absent]):
        with pytest.raises(ValueError, match=f"does not have {absent}$"):
            opexec.load(source("echo"), cpus=cpus)
    with opexec.load(source("echo")) as model:
        assert model(np.ones(1)) == 1


def test_environment_variables(placed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OF_THE_CALLER", "UNSET", "BOTH"):
        monkeypatch.setenv(name, "caller")
    monkeypatch.setenv("XLA_FLAGS", "--of_the_caller")
    env = Environment(
        sys.executable, env_vars={"BOTH": "environment", "ITS": "environment", "OMP_NUM_THREADS": "9"}
    )
    given = {"UNSET": None, "GIVEN": "load", "MKL_NUM_THREADS": "7", "NOT_NAMED": ""}
    names = [
        "OF_THE_CALLER",
        "UNSET",
        "BOTH",
        "ITS",
        "GIVEN",
        "NOT_NAMED",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "XLA_FLAGS",
    ]
    with opexec.load(placed, env=env, env_vars=given, threads=1) as model:
        expected = ["caller", "unset", "environment", "environment", "load", "", "1", "7"]
        expected.append("--of_the_caller --xla_cpu_multi_thread_eigen=false")
        assert variables(model, *names) == expected
        model.restart()
        assert variables(model, *names) == expected
    with opexec.load(placed, env=env, env_vars={"BOTH": "load"}) as model:
        assert variables(model, "BOTH", "OMP_NUM_THREADS", "MKL_NUM_THREADS") == ["load", "9", "unset"]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"env_vars": ["A=1"]}, TypeError, "env_vars is of type list; expected a dict"),
        ({"env_vars": {"A": 1}}, ValueError, "env_vars has A=1; expected a text, or None"),
        ({"env_vars": {"A=B": "1"}}, ValueError, "env_vars has the key 'A=B'"),
        ({"env_vars": {"": "1"}}, ValueError, "env_vars has the key ''"),
        ({"options": [1]}, TypeError, "options is .*; expected a dict"),
        ({"options": {"f": print}}, TypeError, "options is .*; expected a dict of texts"),
        ({"options": {1: 2}}, TypeError, "options has the key 1; expected the name of an option"),
        (
            {"platform": "onnx", "options": {"threads": 1}, "threads": 2},
            ValueError,
            "'threads' is given twice: 2 as an argument of load, and 1 in options",
        ),
        ({"platform": "onnx", "options": {"threads": 0}}, ValueError, "threads is 0; expected a positive"),
        (
            {"platform": "onnx", "options": {"device": "gpu"}},
            ValueError,
            "device is 'gpu'; expected 'cpu', 'cuda'",
        ),
        (
            {"platform": "onnx", "options": {"device": "cpu"}, "device": "cuda:1"},
            ValueError,
            "'device' is given twice: 'cuda:1' as an argument of load, and 'cpu' in options",
        ),
        (
            {"platform": "mine.platform", "options": {"threads": "many"}, "threads": 1},
            ValueError,
            "'threads' is given twice: 1 as an argument of load, and 'many' in options",
        ),
        ({"platform": 5}, ValueError, "platform is 5; expected its name"),
    ],
    ids=str,
)
def test_more_arguments_that_make_no_sense(
    arguments: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        opexec.load(source("echo"), **arguments)


@pytest.mark.parametrize(("platform", "has"), [("onnx", True), ("python", False), ("tensorrt", False)])
def test_threads_are_no_option_of_a_platform_that_has_none(platform: str, has: bool) -> None:
    for asked in ({"threads": 1}, {"cpus": sorted(os.sched_getaffinity(0))[:1]}):
        request = Request(source=source("echo"), platform=platform, **asked)  # type: ignore[arg-type]
        assert request.settings == ({"threads": 1} if has else {})


def asked(platform: str = "onnx", **arguments: Any) -> tuple[dict[str, Any], dict[str, str | None]]:
    """What the platform and the worker's environment are told."""
    request = Request(source=source("echo"), platform=platform, **arguments)
    return request.settings, request.variables({})


def test_threads_as_an_option_are_threads_as_an_argument() -> None:
    expected = asked(threads=3)
    assert expected[0] == {"threads": 3} and expected[1]["OMP_NUM_THREADS"] == "3"
    assert asked(options={"threads": 3}) == expected
    assert asked(options={"threads": 3}, threads=3) == asked(options={"threads": None}, threads=3) == expected
    cores = sorted(os.sched_getaffinity(0))[:1]
    assert asked(options={"threads": 3}, cpus=cores) == asked(threads=3, cpus=cores) == expected
    assert asked("mine.platform", options={"threads": 3}) == expected
    # A Python model has no such option, and so the worker refuses it; one's own platform may mean something else by it.
    for platform, value in (("python", 3), ("mine.platform", "many")):
        settings, variables = asked(platform, options={"threads": value})
        assert settings == {"threads": value} and "OMP_NUM_THREADS" not in variables


def test_a_device_as_an_option_is_a_device_as_an_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [devices.Gpu(number, f"GPU-{number}{number}", "A100") for number in range(3)]
    monkeypatch.setattr(devices, "listed", lambda: gpus)
    monkeypatch.setenv(devices.VISIBLE, "2,0")
    expected = asked(device="cuda:1")
    assert expected[0] == {"device": "cuda:0"} and expected[1][devices.VISIBLE] == "GPU-00"
    for platform in ("onnx", "mine.platform"):
        assert asked(platform, options={"device": "cuda:1"}) == expected
        assert asked(platform, options={"device": "cuda:1"}, device="cuda:1") == expected
        assert asked(platform, options={"device": "cpu"}) == asked(platform)
    assert asked()[1][devices.VISIBLE] == ""
    in_process = asked(options={"device": "cuda"}, isolation="none")
    assert in_process == asked(device="cuda", isolation="none")
    assert in_process[0] == {"device": "cuda:0"}
    settings, variables = asked("mine.platform", options={"device": "tpu"})
    assert settings == {"device": "tpu"} and variables[devices.VISIBLE] == ""


def test_a_gpu_that_an_option_names_and_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "listed", lambda: [devices.Gpu(0, "GPU-00", "A100")])
    monkeypatch.delenv(devices.VISIBLE, raising=False)
    with pytest.raises(LoadError, match="needs a GPU number 1; cuda:0 is A100") as caught:
        opexec.load(source("echo"), platform="onnx", options={"device": "cuda:1"})
    assert caught.value.stage == "device"


@pytest.mark.parametrize("isolation", ["process", "none"])
def test_a_platform_and_its_options_reach_the_platform(isolation: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="nonesuch"):
        opexec.load("anything", platform="nonesuch", isolation=isolation)
    with pytest.raises(LoadError, match="colour"):
        opexec.load(source("echo"), options={"colour": tmp_path}, isolation=isolation)


@pytest.mark.slow
def test_an_environment_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from opexec.environments import store as environment_store

    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path))
    request = {"python": sys.executable, "requirements": ["six"]}
    environment_store.save("sixes", request, Environment(**request).resolve())
    with opexec.load(source("echo"), env="sixes") as model:
        assert str(tmp_path) in model.workers[0].interpreter
    with pytest.raises(BuildError, match="sixes"):
        opexec.load(source("echo"), env="sixe", wait_ready=False)
