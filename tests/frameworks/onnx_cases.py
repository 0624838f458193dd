"""The onnx platform, with a real onnxruntime. Run by test_frameworks.py in environments of several versions; Python >= 3.7.

OPEXEC_TEST_MODELS names the folder with the models of onnx_models.py.
"""

import importlib.util
import os
import sys

import numpy as np
import onnxruntime
import pytest

from opexec.ipc import wire
from opexec.workers import platforms
from opexec.workers.platforms import onnx

F4 = np.float32
HAS_ML_DTYPES = importlib.util.find_spec("ml_dtypes") is not None
NUMBERS = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
TAKES_EXTENSIONS = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) >= (1, 20)


def load(name, **options):
    return platforms.load("onnx", os.path.join(os.environ["OPEXEC_TEST_MODELS"], name + ".onnx"), options)


def call(model, memory, *args, **kwargs):
    return model.run(model.bind(list(args), kwargs), memory.reserve)


def rows(count):
    return np.arange(count * 8, dtype=F4).reshape(count, 8)


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_specs_come_from_the_model():
    model = load("specs")
    assert (model.framework, model.version) == ("onnxruntime", onnxruntime.__version__)
    assert model.inputs == [
        {"name": "a", "dtype": "float32", "shape": ["batch", 3, None]},
        {"name": "b", "dtype": "float32", "shape": None},  # rank 0: not to be told from no rank at all
        {"name": "c", "dtype": "float32", "shape": [None, None]},
    ]
    assert model.outputs == [
        {"name": "sum", "dtype": "float32", "shape": ["batch", 3, None]},
        {"name": "shape", "dtype": "int64", "shape": [2]},
    ]


def test_inputs_are_read_where_they_lie_and_outputs_written_where_they_belong(memory):
    model = load("add")
    x, y = rows(4), rows(4)
    bound = model.bind([x], {"y": y})
    for round in range(6):
        x[...] = round
        result = model.run(bound, memory.reserve)
        assert list(result) == ["z"]
        assert same(result["z"], x + y)
        assert memory.holds(result) == (round > 0)
        memory.check()


def test_outputs_of_earlier_runs_keep_their_values(memory):
    model = load("add")
    x = rows(4)
    bound = model.bind([x, x], {})
    kept = []
    for round in range(20):
        x[...] = round
        kept.append(model.run(bound, memory.reserve)["z"])
    assert [one[0, 0] for one in kept] == [2 * round for round in range(20)]


def test_other_places_and_other_shapes_follow_each_other(memory):
    model = load("add")
    bound = [model.bind([], {"x": rows(count), "y": rows(count)}) for count in (1, 3, 0, 3, 7)]
    for _ in range(3):
        for one, count in zip(bound, (1, 3, 0, 3, 7)):
            assert same(model.run(one, memory.reserve)["z"], rows(count) * 2)


def test_what_is_kept_for_places_and_shapes_is_bounded(memory):
    model = load("add")
    one = model.bind([rows(1), rows(1)], {})
    for count in range(300):
        x = np.zeros((count, 8), F4)
        model.run(model.bind([x, x], {}), memory.reserve)
        model.run(one, memory.reserve)
    assert len(model._known) <= onnx._SHAPES_KEPT
    assert len(one._bindings) <= onnx._BINDINGS_KEPT
    assert memory.holds(model.run(one, memory.reserve))


def test_a_place_that_holds_another_shape_than_before(memory):
    model = load("add")
    place = np.zeros(1024, F4)
    for count in (4, 2, 8, 4):
        x = place[: count * 8].reshape(count, 8)
        bound = model.bind([x, x], {})
        for value in (1, 2):
            x[...] = value
            assert same(model.run(bound, memory.reserve)["z"], x * 2)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_every_dtype_and_rank(name, shape, memory):
    model = load("echo_" + name)
    assert model.inputs[0]["dtype"] == model.outputs[0]["dtype"] == name
    size = int(np.prod(shape, dtype=np.int64))
    x = np.arange(1, size + 1).astype(name).reshape(shape)
    bound = model.bind([x], {})
    for round in range(3):
        result = model.run(bound, memory.reserve)
        assert same(result["y"], x)
        assert memory.holds(result) == (round > 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x[:, ::2],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f4"),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: (
            np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(F4).reshape(x.shape)
        ),  # read-only, misaligned
    ],
    ids=["reversed", "strided", "fortran", "big-endian", "broadcast", "misaligned"],
)
def test_arrays_of_any_layout(change, memory):
    x = change(rows(4))
    result = call(load("echo_float32"), memory, x)
    assert same(result["y"], np.ascontiguousarray(x, F4))


def test_shapes_that_depend_on_values(memory):
    model = load("nonzero")
    x = np.zeros((4, 8), F4)
    bound = model.bind([x], {})
    for count in (3, 3, 3, 5, 1, 0, 32, 5):
        x.ravel()[:] = np.arange(32) < count
        result = model.run(bound, memory.reserve)
        assert same(result["z"], np.array(np.nonzero(x), np.int64))
        memory.check()
    assert len(memory.reserved) == 3  # after the first wrong guess there are no more


def test_shapes_that_depend_on_the_branch_taken(memory):
    model = load("branch")
    x, condition = rows(2), np.array(True)
    bound = model.bind([], {"x": x, "c": condition})
    for taken in (True, True, False, True, False, False):
        condition[...] = taken
        assert same(model.run(bound, memory.reserve)["z"], x + x if taken else np.concatenate([x, x]))


def test_shapes_that_depend_on_scalars(memory):
    model = load("range")
    first, end, step = (np.array(value, F4) for value in (0, 4, 1))
    bound = model.bind([first, end, step], {})
    for count in (4, 4, 9, 2, 0, 4):
        end[...] = count
        assert same(model.run(bound, memory.reserve)["z"], np.arange(count, dtype=F4))


def test_the_same_memory_in_another_shape(memory):
    model = load("reshape")
    x, shape = rows(4), np.array([8, 4])
    bound = model.bind([x, shape], {})
    for rank in ([8, 4], [8, 4], [4, 8], [2, 16], [32, 1]):
        shape[...] = rank
        assert same(model.run(bound, memory.reserve)["z"], x.reshape(rank))


def test_an_output_that_is_an_input_by_name(memory):
    model = load("through")
    x = rows(3)
    bound = model.bind([x], {})
    for value in (1, 2, 3):
        x[...] = value
        result = model.run(bound, memory.reserve)
        assert same(result["x"], x) and same(result["y"], x)


def test_outputs_that_are_constants(memory):
    model = load("constant")
    x = rows(3)
    bound = model.bind([x], {})
    for value in (1, 2, 3):
        x[...] = value
        result = model.run(bound, memory.reserve)
        assert same(result["z"], np.arange(5, dtype=F4))
        assert same(result["k"], np.full(1, 7, F4))
        assert same(result["y"], x + 7)


def test_a_model_that_fails_for_some_values_serves_the_next_call_in_place(memory):
    model = load("gather")
    index = np.array([1, 2])
    bound = model.bind([index], {})
    for _ in range(2):
        assert same(model.run(bound, memory.reserve)["z"], np.array([1, 2], F4))
    index[...] = 9
    with pytest.raises(Exception, match="(?s)(?i)gather.*9"):
        model.run(bound, memory.reserve)
    index[...] = 3
    result = model.run(bound, memory.reserve)
    assert same(result["z"], np.array([3, 3], F4))
    assert memory.holds(result)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["", "a", "b\u00fc\u4e2d\U0001f600"], object),
        np.array([["one", "two"], ["x" * 1000, ""]], object),
        np.array("alone", object),
        np.array([], object),
        np.array(["a", "b\u00fc"]),
        np.array("alone"),
        np.array("b\u00fc".encode()),
        np.array([b"a", "b\u00fc".encode()], object),
        np.array([["a", "b"], ["c", "d"]], object)[:, ::-1],
    ],
    ids=["object", "2-d", "0-d", "empty", "U", "0-d U", "0-d S", "bytes", "reversed"],
)
def test_texts(array, memory):
    model = load("echo_string")
    assert model.inputs[0]["dtype"] == "string"
    result = call(model, memory, array)["y"]
    assert result.shape == array.shape
    assert result.dtype == object
    expected = [one.decode() if isinstance(one, bytes) else one for one in array.ravel().tolist()]
    assert result.ravel().tolist() == expected


@pytest.mark.parametrize(
    "array, words",
    [
        (np.array([b"a", b"\xff"], object), "input 'x' holds bytes that are no text in UTF-8: .*0xff"),
        (np.array(["a", 1], object), "input 'x' holds an object of type int; the model takes texts"),
        (np.array([1.5]), "input 'x' is float64; the model takes string: convert it first"),
    ],
    ids=["bytes", "int", "numbers"],
)
def test_what_is_no_text_is_refused_where_a_text_should_be(array, words):
    with pytest.raises(TypeError, match=words):
        load("echo_string").bind([array], {})


def test_a_result_that_is_no_tensor(memory):
    model = load("zipmap")
    assert model.outputs is None
    result = call(model, memory, np.array([[0.25, 0.75], [1, 0]], F4))
    assert result == {"z": [{10: 0.25, 20: 0.75}, {10: 1.0, 20: 0.0}]}


@pytest.mark.parametrize("with_ml_dtypes", [False] + [True] * HAS_ML_DTYPES)
@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_kinds_that_numpy_lacks(kind, with_ml_dtypes, memory, monkeypatch):
    if not with_ml_dtypes:
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    if not TAKES_EXTENSIONS:
        # 1.14 reads a bfloat16 model, older ones and float8 models fail before.
        with pytest.raises(Exception, match=r"takes them from version 1\.20 on|cannot load"):
            load("double_" + kind)
        return
    model = load("double_" + kind)
    assert model.inputs[0]["dtype"] == model.outputs[0]["dtype"] == kind
    one, two = {"bfloat16": (0x3F80, 0x4000), "float8_e4m3fn": (0x38, 0x40), "float8_e5m2": (0x3C, 0x40)}[
        kind
    ]
    bits = np.dtype("u2" if kind == "bfloat16" else "u1")
    x = np.full(5, one, bits).view(wire.extension_dtype(kind))
    assert (x.dtype.names is None) == with_ml_dtypes
    bound = model.bind([x], {})
    for round in range(4):
        result = model.run(bound, memory.reserve)
        assert wire.extension_name(result["y"].dtype) == kind
        assert (result["y"].view(bits) == two).all()
        assert memory.holds(result) == (round > 0)


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({"x": rows(2)}, r"inputs are \['x', 'y'\]; received \['x'\]"),
        ({"x": rows(2), "y": rows(2), "q": rows(2)}, r"inputs are \['x', 'y'\]; received \['q', 'x', 'y'\]"),
        ({"x": rows(2), "y": rows(2).astype("f8")}, "input 'y' is float64; the model takes float32"),
        # The rest onnxruntime finds, in words that changed from version to version.
        ({"x": rows(2), "y": rows(3)}, None),
        ({"x": rows(2), "y": rows(2)[0, :4]}, None),
    ],
    ids=["missing", "extra", "dtype", "size", "rank"],
)
def test_wrong_inputs_are_refused_and_the_next_call_works(inputs, words, memory):
    model = load("add")
    good = model.bind([rows(2), rows(2)], {})
    for _ in range(3):
        with pytest.raises(Exception, match=words):
            bound = model.bind([], inputs)
            for _ in range(2):
                model.run(bound, memory.reserve)
        result = model.run(good, memory.reserve)
        assert same(result["z"], rows(2) * 2)
    assert memory.holds(result)


def test_inputs_by_position_are_counted(memory):
    model = load("add")
    with pytest.raises(
        TypeError, match=r"3 inputs by position and \[\] by name; the model's inputs are \['x', 'y'\]"
    ):
        model.bind([rows(1)] * 3, {})
    with pytest.raises(TypeError, match=r"1 inputs by position and \['x'\] by name"):
        model.bind([rows(1)], {"x": rows(1)})


def test_threads_are_set(memory):
    model = load("add", threads=1)
    assert model._session.get_session_options().intra_op_num_threads == 1
    assert same(call(model, memory, rows(1), rows(1))["z"], rows(1) * 2)


def test_a_gpu_needs_an_onnxruntime_that_was_built_for_it():
    if onnx.CUDA in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has " + onnx.CUDA)
    with pytest.raises(
        RuntimeError,
        match=r"the device 'cuda:0' was asked for, and onnxruntime {} has no CUDAExecutionProvider; it has .*CPUExecutionProvider.*"
        r"requirements=\['onnxruntime-gpu'\]".format(onnxruntime.__version__),
    ):
        load("add", device="cuda:0")
    with pytest.raises(ValueError, match="the option device is 'gpu'; expected 'cpu', 'cuda' or 'cuda:0'"):
        load("add", device="gpu")


def cuda_that_is_the_cpu(given):
    """Stands for the class of sessions of a build for CUDA: keeps in `given` what it was told, and computes on the CPU."""

    class Session(onnxruntime.InferenceSession):
        def __init__(self, source, settings, providers, **others):
            given.append((providers, others))
            super().__init__(source, settings, providers=[onnx.CPU])
            self.told = providers

        def get_providers(self):
            return self.told

    return Session


def test_on_a_gpu_nothing_stays_bound(memory, monkeypatch):
    given = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [onnx.CUDA, onnx.CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(onnxruntime, "InferenceSession", cuda_that_is_the_cpu(given))
    for device in ("cuda:0", "cuda:2", "cpu"):
        model = load("add", device=device)
        x, y = rows(4), rows(4)
        bound = model.bind([x, y], {})
        for round in range(4):
            x[...] = round
            result = model.run(bound, memory.reserve)
            assert same(result["z"], x + y)
            assert memory.holds(result) == (device == "cpu" and round > 0)
    both = [onnx.CUDA, onnx.CPU]
    assert given == [
        (both, {}),
        (both, {"provider_options": [{"device_id": "2"}, {}]}),
        ([onnx.CPU], {}),
    ]


def test_settings_of_cudas_provider_reach_it(monkeypatch):
    given = []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [onnx.CUDA, onnx.CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", cuda_that_is_the_cpu(given))
    preloaded = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: preloaded.append(len(given)), raising=False)
    load("add", device="cuda:0", cuda={"gpu_mem_limit": 1 << 30})
    load("add", device="cuda:2", cuda={"gpu_mem_limit": 1 << 30})
    assert [others["provider_options"][0] for _, others in given] == [
        {"gpu_mem_limit": "1073741824"},
        {"gpu_mem_limit": "1073741824", "device_id": "2"},
    ]
    load("add", device="cpu")
    assert preloaded == [0, 1], "before each session on a GPU, and for no other"
    for options in ({"cuda": {"a": 1}}, {"device": "cuda:0", "cuda": {"device_id": 1}}):
        with pytest.raises(
            ValueError, match="the option cuda is .* without device_id, and a device 'cuda:N'"
        ):
            load("add", **options)


def test_a_gpu_that_onnxruntime_passes_over_is_an_error(monkeypatch):
    class Session(cuda_that_is_the_cpu([])):
        def get_providers(self):
            return [onnx.CPU]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [onnx.CUDA, onnx.CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(
        RuntimeError, match="has CUDAExecutionProvider, but could not start it on the device 'cuda'"
    ):
        load("add", device="cuda")


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="'thread'"):
        load("add", thread=1)


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "junk.onnx"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(
        RuntimeError, match="onnxruntime {} cannot load .*junk.onnx: ".format(onnxruntime.__version__)
    ):
        platforms.load("onnx", str(path), {})
