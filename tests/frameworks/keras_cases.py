"""The keras platform, with a real Keras: 2 in TensorFlow 1 and 2, 3 on each of its backends. Run by test_frameworks.py; Python >= 3.7."""

import importlib.util
import os
import sys
import zipfile

import numpy as np
import pytest

from opexec.workers import platforms
from opexec.workers.arrays import address
from opexec.workers.structure import flatten

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from keras_models import (
    BACKEND,
    IS_3,
    IS_GRAPH,
    L,
    affine_model,
    keras,
    save,
    sequential_model,
    session_apart,
)
from subject import BIAS, WEIGHTS, affine, rows

F4 = np.float32
ENDINGS = [".h5", ".hdf5"] + [".keras"] * IS_3

LAYER = """
import {module} as keras

class Scale(keras.layers.Layer):
    def __init__(self, factor=1.0, **settings):
        super().__init__(**settings)
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return dict(super().get_config(), factor=self.factor)
"""


def load(path, **options):
    return platforms.load("keras", str(path), options)


def call(model, *args, **kwargs):
    """The result with its nesting, its leaves as arrays that lie nowhere else."""
    return arrays(model.run(model.bind(list(args), kwargs), None))


def arrays(result):
    if isinstance(result, dict):
        return {key: arrays(value) for key, value in result.items()}
    if isinstance(result, (list, tuple)):
        return type(result)(arrays(value) for value in result)
    return flatten(result)[1][0].copy()


def aligned(array, offset=0):
    """A copy that begins `offset` bytes behind a multiple of 64."""
    raw = np.empty(array.nbytes + 128, np.uint8)
    begin = -raw.__array_interface__["data"][0] % 64 + offset
    copy = raw[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def where(bound):
    """Where the elements of the one input lie that the model is going to look at; None if it is given a copy in each run."""
    if IS_GRAPH:
        (array,) = bound.values()
        return address(array)
    if BACKEND == "tensorflow":
        (given,), _ = bound
        return None if given.copies else address(given.tensor()._numpy())
    (given,), _ = bound.arguments()
    return given.unsafe_buffer_pointer() if BACKEND == "jax" else given.data_ptr()


@pytest.fixture
def saved(tmp_path):
    return lambda build, ending=".h5": save(str(tmp_path), build, ending)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("build", [affine_model, sequential_model])
def test_each_kind_of_file(build, ending, saved):
    model = load(saved(build, ending))
    assert (model.framework, model.version) == ("keras", keras.__version__)
    for count in (3, 0, 1):
        x = aligned(rows(count))
        assert same(call(model, x), affine(x))


def test_specs_come_from_the_model(saved):
    def build():
        one, two = keras.Input((4, None), name="one"), keras.Input((), dtype="int32", name="two")
        return keras.Model(
            [one, two], [L.Activation("relu")(one), L.Activation("linear", dtype="int32")(two)]
        )

    model = load(saved(build))
    assert model.inputs == [
        {"name": "one", "dtype": "float32", "shape": [None, 4, None]},
        {"name": "two", "dtype": "int32", "shape": [None]},
    ]
    assert model.outputs == [
        {"name": "output_0", "dtype": "float32", "shape": [None, 4, None]},
        {"name": "output_1", "dtype": "int32", "shape": [None]},
    ]
    one, two = np.ones((2, 4, 3), F4), np.array([5, 6], "i4")
    for first, second in (call(model, one, two), call(model, two=two, one=one), call(model, one, two=two)):
        assert same(first, one) and same(second, two)


def test_an_aligned_input_is_read_where_it_lies(saved):
    model = load(saved(affine_model))
    x = aligned(rows(5))
    bound = model.bind([x], {})
    assert where(bound) == address(x)
    for round in range(5):
        x[...] = rows(5) + round
        kept = x.copy()
        assert same(arrays(model.run(bound, None)), affine(x))
        assert same(x, kept)


@pytest.mark.parametrize("offset", [4, 16, 32, 60])
def test_what_is_not_aligned_is_read_too(offset, saved):
    model = load(saved(affine_model))
    x = aligned(rows(5), offset)
    bound = model.bind([x], {})
    for round in range(3):
        x[...] = rows(5) + round
        assert same(arrays(model.run(bound, None)), affine(x))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[::-1],
        lambda x: x[:, ::2],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f4"),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(F4).reshape(x.shape),
    ],
    ids=["reversed", "strided", "fortran", "big-endian", "broadcast", "misaligned"],
)
def test_arrays_of_any_layout(change, saved):
    x = change(rows(4, 8))[:, :4]
    assert same(call(load(saved(affine_model)), x), affine(np.ascontiguousarray(x, F4)))


def test_a_read_only_array_is_read_too(saved):
    x = aligned(rows(3))
    x.flags.writeable = False
    assert same(call(load(saved(affine_model)), x), affine(x))


def test_a_result_is_the_backends_own_memory(saved):
    model = load(saved(affine_model))
    bound = model.bind([aligned(rows(1000))], {})
    (leaf,) = flatten(model.run(bound, None))[1]
    assert leaf.base is not None and not leaf.flags.owndata


def test_results_of_earlier_runs_keep_their_values(saved):
    model = load(saved(affine_model))
    x = aligned(rows(3))
    bound = model.bind([x], {})
    kept = []
    for round in range(10):
        x[...] = round
        kept.append(flatten(model.run(bound, None))[1][0])
    for round, y in enumerate(kept):
        assert same(y, affine(np.full((3, 4), round, F4)))


def test_it_is_compiled_once_for_every_size(saved, tmp_path):
    """Python code of a layer runs while the model is loaded and compiled, not in calls."""
    model = load(saved(affine_model))
    if BACKEND == "jax":
        for _ in range(2):  # once for each shape
            for count in (1, 2, 3):
                call(model, aligned(rows(count)))
        assert model._call._cache_size() == 3
    elif BACKEND == "tensorflow" and not IS_GRAPH:
        graph = model._call.graph
        for count in (1, 2, 3):
            call(model, aligned(rows(count)))
        assert model._call.graph is graph and graph.inputs[0].shape.as_list() == [None, 4]


def test_dropout_is_off_and_the_answer_is_that_of_predict(saved):
    def build():
        x = keras.Input((4,), name="x")
        normal = L.BatchNormalization()(L.Dropout(0.9)(x))
        return keras.Model(x, L.Dense(3)(normal))

    path = saved(build)
    x = rows(70)
    expected = session_apart(lambda: np.asarray(keras.models.load_model(path, compile=False).predict(x)))
    np.testing.assert_allclose(call(load(path), x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "nesting", ["list"] if IS_GRAPH else ["list", "dict"]
)  # Keras in TensorFlow 1 has no dicts
def test_results_keep_their_nesting(nesting, saved):
    ending = ".keras" if IS_3 else ".h5"

    def build():
        one, two = keras.Input((2,), name="one"), keras.Input((2,), name="two")
        total, product = L.Add()([one, two]), L.Multiply()([one, two])
        if nesting == "list":
            return keras.Model([one, two], [total, product])
        return keras.Model({"one": one, "two": two}, {"total": total, "product": product})

    model = load(saved(build, ending))
    one, two = np.array([[1, 2]], F4), np.array([[3, 4]], F4)
    result = call(model, two=two, one=one)
    if nesting == "dict":
        assert sorted(result) == ["product", "total"]
        result = [result["total"], result["product"]]
    assert type(result) is list
    assert same(result[0], one + two) and same(result[1], one * two)
    names = [spec["name"] for spec in model.outputs]
    assert sorted(names) == (["product", "total"] if nesting == "dict" else ["output_0", "output_1"])


# ---- what is not Keras's own


@pytest.fixture
def layer(tmp_path):
    """A file with a layer of the user's own, and the path of a model that has it."""
    file = tmp_path / "own_layers.py"
    file.write_text(LAYER.format(module="keras" if IS_3 else "tensorflow.keras"))
    spec = importlib.util.spec_from_file_location("own_layers_written", str(file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def build():
        x = keras.Input((4,), name="x")
        return keras.Model(x, module.Scale(3.0)(x))

    return file, save(str(tmp_path), build, ".h5")


def test_custom_objects_come_from_a_file(layer):
    file, path = layer
    model = load(path, custom_objects={"Scale": "{}:Scale".format(file)})
    assert same(call(model, rows(2)), rows(2) * 3)


def test_custom_objects_that_are_not_there(layer):
    file, path = layer
    with pytest.raises(RuntimeError, match="(?s)keras .* cannot load .*model.h5.*Scale"):
        load(path)
    with pytest.raises(AttributeError, match="has no 'Nope', which the option custom_objects names"):
        load(path, custom_objects={"Scale": "{}:Nope".format(file)})
    with pytest.raises(FileNotFoundError, match="no_such_file.py"):
        load(path, custom_objects={"Scale": str(file.parent / "no_such_file.py:Scale")})
    for wrong in ("Scale", {"Scale": 3}):
        with pytest.raises(
            ValueError, match="the option custom_objects is .*expected {name: 'file.py:object'}"
        ):
            load(path, custom_objects=wrong)


# ---- what is refused


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({}, r"the model's inputs are \['x'\]; received \[\]"),
        ({"x": rows(2), "q": rows(2)}, r"the model's inputs are \['x'\]; received \['q', 'x'\]"),
        ({"x": rows(2).astype("f8")}, "input 'x' is float64; the model takes float32"),
        ({"x": np.array([["a"] * 4], object)}, "input 'x' is string; the model takes float32"),
        ({"x": rows(2, 5)}, r"input 'x' has the shape \[2, 5\]; the model takes \['any', 4\]"),
        ({"x": rows(2)[0]}, r"input 'x' has the shape \[4\]"),
    ],
    ids=["missing", "extra", "dtype", "text", "size", "rank"],
)
def test_wrong_inputs_are_refused_and_the_next_call_works(inputs, words, saved):
    model = load(saved(affine_model))
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=words):
            model.bind([], inputs)
        assert same(call(model, rows(2)), affine(rows(2)))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"backend": "theano"}, "backend is 'theano'; expected one of tensorflow, jax, torch"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"compile": True}, "no option 'compile'.*custom_objects"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, words, saved):
    with pytest.raises(ValueError, match=words):
        load(saved(affine_model), **options)


def test_another_backend_than_the_one_at_work(saved):
    other = "torch" if BACKEND == "jax" else "jax"
    words = "computes with .* in this process, and cannot change to" if IS_3 else "only Keras 3 has backends"
    with pytest.raises((RuntimeError, ValueError), match=words):
        load(saved(affine_model), backend=other)
    assert same(call(load(saved(affine_model), backend=BACKEND), rows(2)), affine(rows(2)))


def test_weights_alone_are_refused(tmp_path):
    path = str(tmp_path / "model.weights.h5")
    session_apart(lambda: affine_model().save_weights(path))
    with pytest.raises(
        RuntimeError,
        match=r"(?s)keras {} cannot load .*weights.*factory.*Environment\(".format(keras.__version__),
    ):
        load(path)


@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_a_file_of_anything_is_refused(ending, tmp_path):
    path = tmp_path / ("junk" + ending)
    path.write_bytes(b"junk" * 100)
    with pytest.raises(RuntimeError, match="keras {} cannot load .*junk".format(keras.__version__)):
        load(path)


def test_the_version_that_wrote_a_file_is_named(tmp_path):
    path = str(tmp_path / "model.keras")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "9.8.7"}')
        archive.writestr("config.json", '{"class_name": "FromTheFuture", "module": "nowhere", "config": {}}')
    words = "(?s)keras {} cannot load .*model.keras, which keras 9.8.7 wrote: ".format(keras.__version__)
    with pytest.raises(RuntimeError, match=words + ("" if IS_3 else ".*Keras 3's")):
        load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nope.h5"):
        load(tmp_path / "nope.h5")


def test_a_gpu_that_is_not_there(saved):
    with pytest.raises(RuntimeError, match="(?i)GPU|cuda"):
        load(saved(affine_model), device="cuda:9")
    assert same(call(load(saved(affine_model), device="cpu", threads=1), rows(2)), affine(rows(2)))


if BACKEND == "tensorflow" and not IS_GRAPH:

    def test_of_a_gpus_memory_no_more_is_taken_than_needed(monkeypatch):
        import tensorflow

        from opexec.workers.platforms import keras_tensorflow

        config, grow = tensorflow.config.experimental, []
        monkeypatch.setattr(
            tensorflow.compat.v1.config.experimental, "list_physical_devices", lambda kind: ["GPU 0", "GPU 1"]
        )
        monkeypatch.setattr(config, "set_memory_growth", lambda gpu, on: grow.append((gpu, on)))
        assert keras_tensorflow._device({"device": "cuda:1"}) == "/GPU:1"
        assert grow == [("GPU 0", True), ("GPU 1", True)]

        def in_use(gpu, on):
            raise RuntimeError("Physical devices cannot be modified after being initialized")

        monkeypatch.setattr(config, "set_memory_growth", in_use)
        assert keras_tensorflow._device({"device": "cuda"}) == "/GPU:0"


def test_two_models_in_one_process_do_not_meet(saved, tmp_path):
    def other():
        x = keras.Input((4,), name="x")
        layer = L.Dense(3, name="y")
        made = keras.Model(x, layer(x))
        layer.set_weights([np.zeros((4, 3), F4), np.ones(3, F4)])
        return made

    one = load(saved(affine_model))
    (tmp_path / "other").mkdir()
    two = load(save(str(tmp_path / "other"), other, ".h5"))
    for _ in range(2):
        assert same(call(one, rows(2)), affine(rows(2)))
        assert same(call(two, rows(2)), np.ones((2, 3), F4))


MODEL = """
import {module} as keras

class Twice(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = keras.layers.Dense(3)

    def call(self, x, offset=None):
        return self.dense(x) * 2 if offset is None else self.dense(x) * 2 + offset
"""

NESTING = """
import collections
import {module} as keras

Pair = collections.namedtuple("Pair", "first rest")

class Nesting(keras.Model):
    def call(self, x):
        return {{"pair": Pair(x + 1, (x * 2, [x])), "none": None}}
"""


if IS_3:  # before that, no file holds such a model whole

    def own(tmp_path, code, name):
        """A model of a class of the user's own, not called yet, and what names it in custom_objects."""
        file = tmp_path / "own_model.py"
        file.write_text(code.format(module="keras"))
        spec = importlib.util.spec_from_file_location("own_model_written", str(file))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return getattr(module, name)(), {name: "{}:{}".format(file, name)}

    def test_a_model_that_does_not_tell_its_inputs_takes_what_its_call_takes(tmp_path):
        written, custom = own(tmp_path, MODEL, "Twice")
        written(keras.ops.ones((1, 4)))
        written.dense.set_weights([WEIGHTS, BIAS])
        path = str(tmp_path / "model.keras")
        written.save(path)
        model = load(path, custom_objects=custom)
        assert model.inputs is None and model.outputs is None
        x, offset = aligned(rows(2)), aligned(np.ones((2, 3), F4))
        for result in (call(model, x), call(model, x=x)):
            assert same(result, affine(x) * 2)
        assert same(call(model, x, offset=offset), affine(x) * 2 + 1)

    def test_named_tuples_and_none_in_a_result(tmp_path):
        written, custom = own(tmp_path, NESTING, "Nesting")
        written(keras.ops.ones((1, 4)))
        path = str(tmp_path / "model.keras")
        written.save(path)
        model = load(path, custom_objects=custom)
        x = aligned(rows(2))
        result = model.run(model.bind([x], {}), None)
        assert result["pair"]._fields == ("first", "rest")
        names, leaves, _ = flatten(result)
        assert names == ("pair/first", "pair/rest/0", "pair/rest/1/0")
        for leaf, expected in zip(leaves, (x + 1, x * 2, x)):
            assert same(leaf, expected)

    def test_inputs_in_dicts_that_share_a_key_are_called_like_their_layers(saved):
        def build():
            minuend, subtrahend = keras.Input((2,), name="minuend"), keras.Input((2,), name="subtrahend")
            # Keras sorts the keys where it flattens them.
            nested = {"z": {"x": minuend}, "c": {"x": subtrahend}}
            return keras.Model(nested, L.Subtract()([minuend, subtrahend]))

        model = load(saved(build, ".keras"))
        assert sorted(spec["name"] for spec in model.inputs) == ["minuend", "subtrahend"]
        large, small = np.full((1, 2), 5, F4), np.full((1, 2), 3, F4)
        assert same(call(model, minuend=large, subtrahend=small), large - small)


if BACKEND == "tensorflow" and IS_3:
    RAGGED = """
import {module} as keras
import tensorflow

class Ragged(keras.Model):
    def call(self, x):
        return {{"rows": tensorflow.RaggedTensor.from_tensor(x)}}
"""

    def test_a_ragged_result_is_refused_by_its_name(tmp_path):
        written, custom = own(tmp_path, RAGGED, "Ragged")
        written(keras.ops.ones((1, 4)))
        path = str(tmp_path / "model.keras")
        written.save(path)
        model = load(path, custom_objects=custom)
        with pytest.raises(TypeError, match="output 'rows' is a RaggedTensor"):
            flatten(model.run(model.bind([aligned(rows(2))], {}), None))
