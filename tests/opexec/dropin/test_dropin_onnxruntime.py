"""The face of onnxruntime is what onnxruntime itself would be, in the same process and on the same files."""

from __future__ import annotations

import gc
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as real
import pytest
from onnx import TensorProto, helper

import opexec
from opexec.dropin import onnxruntime as ort

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
tensor = helper.make_tensor_value_info


def model(*, producer: str = "a test") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Identity", ["t"], ["text"])],
        "sums",
        [tensor("a", FLOAT, ["n", 3]), tensor("b", FLOAT, []), tensor("t", STRING, [None])],
        [tensor("sum", FLOAT, ["n", 3]), tensor("text", STRING, [None])],
        doc_string="adds",
    )
    made = helper.make_model(graph, producer_name=producer, opset_imports=[helper.make_opsetid("", 11)])
    made.ir_version, made.model_version, made.domain, made.doc_string = 6, 7, "test.domain", "a model"
    helper.set_model_props(made, {"task": "sums", "umlaut": "ü"})
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "sums.onnx"
    onnx.save(model(), str(path))
    return path


@pytest.fixture(scope="module")
def sessions(path: Path) -> Any:
    with ort.InferenceSession(path) as session:
        yield session, real.InferenceSession(str(path), providers=["CPUExecutionProvider"])


FEED = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(1, np.float32),
    "t": np.array(["one", "zwölf"], object),
}


def test_run_gives_what_onnxruntime_gives(sessions: Any) -> None:
    ours, theirs = sessions
    for names in (None, [], ["text"], ["text", "sum"]):
        got, expected = ours.run(names, FEED), theirs.run(names, FEED)
        assert type(got) is list and len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert one.dtype == other.dtype


def test_inputs_and_outputs_are_described_as_onnxruntime_does(sessions: Any) -> None:
    ours, theirs = sessions
    for method in ("get_inputs", "get_outputs"):
        got, expected = getattr(ours, method)(), getattr(theirs, method)()
        assert [(one.name, one.type, one.shape) for one in got] == [
            (one.name, one.type, one.shape) for one in expected
        ]


def test_the_metadata_is_that_of_the_file(sessions: Any) -> None:
    ours, theirs = sessions
    got, expected = ours.get_modelmeta(), theirs.get_modelmeta()
    for name in vars(got):
        assert getattr(got, name) == getattr(expected, name), name
    assert got.custom_metadata_map == {"task": "sums", "umlaut": "ü"} and got.version == 7


def test_where_a_session_runs_by_itself(sessions: Any) -> None:
    ours, theirs = sessions
    assert ours.get_providers() == theirs.get_providers() == [CPU]


@pytest.fixture(params=["no GPU", "a GPU"])
def a_gpu(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether nvidia-smi, which stands alone on PATH, lists a GPU. There is none that anything could compute on."""
    program = tmp_path / "nvidia-smi"
    listed = "GPU 0: NVIDIA A (UUID: GPU-aa)\nGPU 1: NVIDIA B (UUID: GPU-bb)" * (request.param == "a GPU")
    program.write_text(f"#!/bin/sh\necho '{listed}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return bool(listed)


@pytest.mark.parametrize("settings", [{}, {"device_id": 0}, {"device_id": "0", "gpu_mem_limit": 1 << 30}])
def test_a_program_for_a_gpu_runs_on_the_cpu_only_with_a_word_and_where_it_says_so(
    path: Path, a_gpu: bool, settings: dict[str, Any]
) -> None:
    # The onnxruntime here was built for the CPU.
    why = "has no CUDAExecutionProvider" if a_gpu else "needs a GPU number 0; there is none"
    assert ort.get_available_providers() == ([CUDA, CPU] if a_gpu else [CPU])
    asked: Any = (CUDA, settings) if settings else CUDA
    with pytest.raises(opexec.LoadError, match=why):
        ort.InferenceSession(path, providers=[asked])
    with (
        pytest.warns(UserWarning, match=f"(?s)the session runs on .'{CPU}'.: .*{why}") as warned,
        ort.InferenceSession(path, providers=[asked, CPU]) as session,
    ):
        assert session.get_providers() == [CPU]
        np.testing.assert_array_equal(session.run(["sum"], FEED)[0], FEED["a"] + 1)
    assert warned[0].filename == __file__


def test_a_file_that_is_no_model_is_no_reason_to_try_the_cpu_in_silence(tmp_path: Path, a_gpu: bool) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(opexec.LoadError, match="cannot load .*junk.onnx"):
        ort.InferenceSession(tmp_path / "junk.onnx", providers=[CUDA, CPU])


@pytest.mark.parametrize(
    "arguments, device, settings",
    [
        ({"providers": [CUDA, CPU]}, "cuda:0", {}),
        ({"providers": [(CUDA, {"device_id": 1}), CPU]}, "cuda:1", {}),
        ({"providers": [CUDA], "provider_options": [{"device_id": "1"}]}, "cuda:1", {}),
        ({"providers": [(CUDA, {"gpu_mem_limit": 5})]}, "cuda:0", {"gpu_mem_limit": 5}),
        ({"providers": ["TensorrtExecutionProvider", CUDA, CPU]}, "cuda:0", {}),
        ({"providers": [CUDA, CPU], "device": "cuda:3"}, "cuda:3", {}),
        ({"device": "cuda:1"}, "cuda:1", {}),
        ({"providers": [CPU, CUDA]}, "cpu", {}),
        ({"providers": [CUDA, CPU], "device": "cpu"}, "cpu", {}),
        ({}, "cpu", {}),
    ],
)
def test_the_device_follows_from_the_providers(
    arguments: dict[str, Any], device: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[dict[str, Any]] = []

    def load(source: Any, ending: str, **given: Any) -> tuple[Any, Path]:
        loaded.append(given)
        return None, Path(source)

    monkeypatch.setattr(ort, "load", load)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        session = ort.InferenceSession("net.onnx", **arguments)
    (given,) = loaded
    assert given["device"] == device and given.get("options", {}) == ({"cuda": settings} if settings else {})
    assert session.get_providers() == ([CPU] if device == "cpu" else [CUDA, CPU])
    others = [one for one in arguments.get("providers", ()) if one not in (CPU, *session.get_providers())]
    passed_over = [name for name in others if isinstance(name, str)]
    assert [str(one.message).split("passed over: ")[1] for one in warned] == passed_over


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"providers": ["ROCMExecutionProvider"]}, f"runs on {CPU} or {CUDA}"),
        ({"providers": [CPU], "device": "cuda:0"}, f"expected {CUDA} among"),
        ({"providers": [CUDA], "device": "cpu"}, f"expected {CPU} among"),
        ({"providers": [(CUDA, {"device_id": 1})], "device": "cuda:0"}, "device_id=1: leave one"),
        ({"providers": [(CUDA, {"user_compute_stream": "1"})]}, "'user_compute_stream'.*this process"),
        ({"providers": [(CPU, {"a": 1})]}, "settings of CPU"),
        ({"providers": [CUDA], "provider_options": [{}, {"a": 1}]}, "expected one for each"),
        ({"providers": [(CUDA, {"a": 1})], "provider_options": [{"a": 1}]}, "given twice"),
    ],
)
def test_providers_that_contradict_themselves_are_refused(
    arguments: dict[str, Any], words: str, path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        ort.InferenceSession(path, **arguments)


def test_cudas_libraries_are_the_workers_to_load() -> None:
    ort.preload_dlls()
    with pytest.raises(ValueError, match="directory is 'lib'.*LD_LIBRARY_PATH"):
        ort.preload_dlls(directory="lib")  # type: ignore[arg-type]


def test_a_model_comes_as_bytes_too_and_its_copy_goes_with_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = ort.InferenceSession(model().SerializeToString())
    session.opexec_model.restart()  # reads the file again
    np.testing.assert_array_equal(session.run(["sum"], FEED)[0], FEED["a"] + 1)
    assert session.get_modelmeta().producer_name == "a test"
    session.close()
    del session
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_bytes_that_are_no_model_leave_nothing_behind(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(opexec.LoadError):
        ort.InferenceSession(b"\xff" * 100)
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_no_tensors_come_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "zipmap.onnx"
    values = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    graph = helper.make_graph(
        [helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[10, 20])],
        "zipmap",
        [tensor("x", FLOAT, ["n", 2])],
        [helper.make_value_info("z", helper.make_sequence_type_proto(values))],
    )
    imports = [helper.make_opsetid("", 11), helper.make_opsetid("ai.onnx.ml", 1)]
    made = helper.make_model(graph, opset_imports=imports)
    made.ir_version = 6
    onnx.save(made, str(path))
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    theirs = real.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with ort.InferenceSession(path) as ours:
        assert ours.run(None, {"x": x}) == theirs.run(None, {"x": x}) == [[{10: 0, 20: 1}, {10: 2, 20: 3}]]
        (got,), (expected,) = ours.get_outputs(), theirs.get_outputs()
        assert (got.name, got.type) == (expected.name, expected.type)


def test_wrong_inputs_and_unknown_outputs_are_value_errors(sessions: Any) -> None:
    session, _ = sessions
    with pytest.raises(ValueError, match="input 'a': expected float32"):
        session.run(None, {**FEED, "a": np.ones((2, 3))})
    with pytest.raises(ValueError, match="input 't' is missing"):
        session.run(None, {"a": FEED["a"], "b": FEED["b"]})
    with pytest.raises(ValueError, match="'other' was asked for.*'sum', 'text'"):
        session.run(["other"], FEED)
    with pytest.raises(ValueError, match="run_options"):
        session.run(None, FEED, object())


def test_session_options_that_mean_something_are_passed_on(path: Path) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    with ort.InferenceSession(str(path), options, ["CPUExecutionProvider"]) as session:
        assert session.get_session_options().intra_op_num_threads == 1
        np.testing.assert_array_equal(session.run(["sum"], FEED)[0], FEED["a"] + 1)


@pytest.mark.parametrize(
    "name, value",
    [
        ("graph_optimization_level", ort.GraphOptimizationLevel.ORT_DISABLE_ALL),
        ("execution_mode", ort.ExecutionMode.ORT_PARALLEL),
        ("enable_profiling", True),
        ("inter_op_num_threads", 4),
        ("no_such_option", 1),
    ],
)
def test_session_options_that_would_be_lost_are_refused(name: str, value: object) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(ort.SessionOptions(), name, value)


def test_bad_session_options_are_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="intra_op_num_threads is -1"):
        ort.SessionOptions().intra_op_num_threads = -1
    with pytest.raises(TypeError, match="onnxruntime.*SessionOptions.*expected a SessionOptions of opexec"):
        ort.InferenceSession(path, real.SessionOptions())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="provider_options"):
        ort.InferenceSession(path, provider_options=[{"device_id": 0}])


def test_what_a_session_lacks_is_said_with_what_it_has(sessions: Any) -> None:
    session, _ = sessions
    with pytest.raises(
        AttributeError, match=r"no 'io_binding'; it has close, get_inputs, .*opexec_model"
    ) as caught:
        session.io_binding()
    assert caught.value.name == "io_binding" and not hasattr(session, "io_binding")
    assert (
        session.opexec_model.stats().calls
        and "_" not in str(caught.value).split("it has ")[1].split(".")[0].split(", ")[0]
    )
    assert "InferenceSession over <Model" in repr(session)


def test_what_the_module_lacks_comes_from_onnxruntime_itself() -> None:
    assert ort.__version__ == real.__version__
    assert ort.get_device is real.get_device
    with pytest.raises(AttributeError, match="neither 'opexec.dropin.onnxruntime'"):
        ort.no_such_name  # noqa: B018


def test_a_closed_session_says_so(path: Path) -> None:
    with ort.InferenceSession(path) as session:
        held = session.run(["sum"], FEED)[0]
    session.close()
    with pytest.raises(opexec.ModelClosed):
        session.run(None, FEED)
    np.testing.assert_array_equal(held, FEED["a"] + 1)
