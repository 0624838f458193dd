"""What every platform promises, checked on the models of one file in the environment of its framework. Python >= 3.7.

Run by test_conformance.py as ``python -I tests/frameworks/run.py conformance.py``, with two environment variables: OPEXEC_TEST_SUBJECTS is the file with
the models (subject.py says what it has), OPEXEC_TEST_MODELS the folder they are written into. There, ``subjects.json`` and one
``.npz`` file for each model tell the caller's side what to load and what the framework itself answers.
"""

import importlib.util
import json
import os
import shutil
import sys

import numpy as np
import pytest

from opexec.ipc import wire
from opexec.workers import platforms
from opexec.workers.structure import flatten

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)

from subject import affine, rows  # noqa: E402

FOLDER = os.environ["OPEXEC_TEST_MODELS"]
FILE = os.environ["OPEXEC_TEST_SUBJECTS"]
BATCHES = (1, 3, 8, 0)
HAVE_DEVICES = ("jax", "keras", "tensorflow", "torch", "torchscript")
#: What is also sent from another process, where the platform has it. (float32 is what all the models take.)
CARRIED = ("bool", "float16", "bfloat16", "complex64")


def _imported(file):
    name = os.path.splitext(file)[0]
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, file))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


models = _imported(FILE)
DTYPES = getattr(models, "DTYPES", {})
BAD = getattr(models, "BAD", {})
VERSIONS = getattr(models, "VERSIONS", {})


@pytest.fixture(scope="module")
def subjects():
    """All of the file's models, written down for the caller's side too."""
    made = {}
    for name, make in models.SUBJECTS.items():
        folder = os.path.join(FOLDER, name)
        os.makedirs(folder)
        made[name] = make(folder)
    bad = {}
    for name, make in BAD.items():
        folder = os.path.join(FOLDER, "bad-" + name)
        os.makedirs(folder)
        bad[name] = make(folder)
    written = {"subjects": {}, "bad": bad, "echoes": _echoes() if DTYPES else None}
    for name, subject in made.items():
        answers = {str(count): np.asarray(subject.direct(rows(count))) for count in BATCHES if count}
        if subject.empty:
            answers["0"] = np.asarray(subject.direct(rows(0)))
        np.savez(os.path.join(FOLDER, name + ".npz"), wrong=subject.wrong, **answers)
        written["subjects"][name] = {
            key: getattr(subject, key)
            for key in "platform source options input output inputs outputs exact empty".split()
        }
    with open(os.path.join(FOLDER, "subjects.json"), "w") as file:
        json.dump(written, file)
    made["bad"] = bad
    return made


def _echoes():
    """A model that gives back what it is given, and the calls to make: lists of ``(dtype, input, output)``."""
    folder = os.path.join(FOLDER, "echoes")
    os.makedirs(folder)
    texts = getattr(models, "TEXTS", None)
    dtypes = [name for name in CARRIED if DTYPES.get(name)] + (["string"] if texts else [])
    if hasattr(models, "echoes"):
        subject, names = models.echoes(folder, dtypes)
        calls = [[(dtype,) + names[dtype] for dtype in dtypes]]
    else:
        subject = models.echo(folder, dtypes[0])
        calls = [[(dtype, subject.input, subject.output)] for dtype in dtypes]
    about = {key: getattr(subject, key) for key in "platform source options".split()}
    return dict(about, calls=calls, texts=texts)


@pytest.fixture(params=list(models.SUBJECTS))
def subject(request, subjects):
    return subjects[request.param]


_loaded = {}


@pytest.fixture
def model(subject):
    """The subject's model; loaded once, as in a worker."""
    if id(subject) not in _loaded:
        _loaded[id(subject)] = loaded(subject)
    return _loaded[id(subject)]


def loaded(subject, **options):
    return platforms.load(subject.platform, subject.source, dict(subject.options, **options))


def aligned(array):
    """A copy at 64 bytes, as all tensors in shared memory lie."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    begin = -raw.__array_interface__["data"][0] % 64
    copy = raw[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def answer(model, bound, memory):
    """The one array that a run gives; as the worker has it before it copies it."""
    (leaf,) = flatten(model.run(bound, memory.reserve))[1]
    return leaf


def check(subject, got, x):
    if subject.exact:
        np.testing.assert_array_equal(got, affine(x))
        assert got.dtype == np.float32
        return
    expected = np.asarray(subject.direct(x))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert got.dtype == expected.dtype and got.shape == expected.shape


def version(framework):
    """What the framework itself says; `framework` is as in `Platform.framework`."""
    if framework in VERSIONS:
        return VERSIONS[framework]
    module = {"scikit-learn": "sklearn", "caffe2": "torch"}.get(framework, framework)
    return str(importlib.import_module(module).__version__)


def test_it_says_what_runs_it(model):
    assert model.version == version(model.framework)


def test_the_specs_are_those_that_the_file_has(subject, model):
    assert model.inputs == subject.inputs
    assert model.outputs == subject.outputs


@pytest.mark.parametrize("count", BATCHES)
def test_it_answers_as_the_framework_does(subject, model, count, memory):
    x = aligned(rows(count))
    if count == 0 and not subject.empty:
        with pytest.raises(Exception):  # noqa: B017  # each framework has its own
            subject.direct(x)
        with pytest.raises(Exception):  # noqa: B017  # each framework has its own
            model.run(model.bind([x], {}), memory.reserve)
        return
    for args, kwargs in (([x], {}), ([], {subject.input: x})):
        bound = model.bind(args, kwargs)
        for _ in range(3):
            check(subject, answer(model, bound, memory), x)
    np.testing.assert_allclose(
        answer(model, bound, memory), np.asarray(subject.direct(x)), rtol=1e-6, atol=1e-6
    )


def test_bound_inputs_are_looked_at_anew_in_each_run(subject, model, memory):
    x = aligned(rows(3))
    bound = model.bind([x], {})
    for round in range(5):
        x[...] = rows(3) + round
        check(subject, answer(model, bound, memory), x)


def test_places_and_shapes_do_not_get_mixed_up(subject, model, memory):
    inputs = [aligned(rows(count) - count) for count in (3, 1, 3, 8)]
    bound = [model.bind([x], {}) for x in inputs]
    for round in range(3):
        for one, x in zip(bound, inputs):
            x[...] += round
            check(subject, answer(model, one, memory), x)


def test_an_input_is_left_as_it_was(subject, model, memory):
    x = aligned(rows(3))
    model.run(model.bind([x], {}), memory.reserve)
    np.testing.assert_array_equal(x, rows(3))


def test_arrays_of_any_layout_are_taken(subject, model, memory):
    # Within the caller's own process an input may lie anywhere; a framework must neither misread nor abort.
    wide = rows(6)
    unaligned = np.frombuffer(b"." * 4 + rows(3).tobytes(), np.float32)[1:].reshape(3, 4)
    for x in (wide[::2], np.asfortranarray(rows(3)), rows(3).astype(">f4"), unaligned):
        plain = np.ascontiguousarray(x, np.float32)
        check(subject, answer(model, model.bind([x], {}), memory), plain)


def test_outputs_keep_their_values_while_the_worker_copies_them(subject, model, memory):
    # What a run returns may be the framework's own memory, or the input's; it has to hold until the next run only.
    x, y = aligned(rows(3)), aligned(rows(3) + 1)
    first, second = model.bind([x], {}), model.bind([y], {})
    check(subject, answer(model, first, memory).copy(), x)
    check(subject, answer(model, second, memory).copy(), y)
    memory.check()


def test_an_input_of_the_wrong_shape_is_an_error_and_the_next_call_works(subject, model, memory):
    x = aligned(rows(3))
    good = model.bind([x], {})
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017  # each framework has its own
            model.run(model.bind([aligned(subject.wrong)], {}), memory.reserve)
        check(subject, answer(model, good, memory), x)


def test_inputs_that_are_missing_or_unknown_are_errors_and_the_next_call_works(subject, model, memory):
    x = aligned(rows(3))
    for args, kwargs in (([], {}), ([x, x, x, x], {}), ([x], {"no_such_input": x})):
        with pytest.raises(Exception):  # noqa: B017  # each framework has its own
            model.run(model.bind(args, kwargs), memory.reserve)
    check(subject, answer(model, model.bind([x], {}), memory), x)


@pytest.mark.parametrize("name", ["anything", "model.json", "model.keras", "model.ort", "model.pt2"])
def test_a_file_may_be_called_anything(name, subject, memory, tmp_path):
    if not os.path.exists(subject.source):
        return  # it has a factory
    renamed = str(tmp_path / name)
    if os.path.isdir(subject.source):
        os.symlink(subject.source, renamed)
    else:
        shutil.copy(subject.source, renamed)
    model = platforms.load(subject.platform, renamed, subject.options)
    x = aligned(rows(3))
    check(subject, answer(model, model.bind([x], {}), memory), x)


def test_an_unknown_option_is_refused_by_name(subject):
    with pytest.raises(ValueError, match="'no_such_option'") as caught:
        loaded(subject, no_such_option=1)
    assert "threads" in str(caught.value) or subject.platform == "python"


def test_threads_and_the_cpu_can_be_asked_for(subject, memory):
    options = {"threads": 1, "device": "cpu"} if subject.platform in HAVE_DEVICES else {"threads": 1}
    if subject.platform == "python":  # its own affair, beyond the environment variables that `load` sets
        with pytest.raises(ValueError, match="'threads'"):
            loaded(subject, **options)
        return
    x = aligned(rows(3))
    model = loaded(subject, **options)
    check(subject, answer(model, model.bind([x], {}), memory), x)


@pytest.mark.parametrize("name", list(DTYPES))
def test_dtypes(name, memory, tmp_path):
    subject = models.echo(str(tmp_path), name)
    dtype = wire.extension_dtype(name) if name in wire.EXTENSIONS else np.dtype(name)
    model = loaded(subject)
    for shape in ((3, 4), (0, 4), (1, 1)):
        size = shape[0] * shape[1]
        bits = np.arange(size * dtype.itemsize, dtype=np.uint8)
        x = np.arange(1, size + 1).astype(name) if dtype.isbuiltin == 1 else bits.view(dtype)
        x = aligned(x.reshape(shape))
        if not DTYPES[name]:
            with pytest.raises(TypeError, match="'{}'.*{}".format(subject.input, name)):
                model.bind([], {subject.input: x})
            continue
        got = answer(model, model.bind([], {subject.input: x}), memory)
        assert (wire.extension_name(got.dtype) or got.dtype.name) == name
        assert got.shape == x.shape and got.tobytes() == x.tobytes()


@pytest.mark.parametrize("name", list(BAD))
def test_a_file_that_cannot_be_read_is_refused_with_its_path_and_the_version(name, subjects):
    framework, platform, source, options = subjects["bad"][name]
    with pytest.raises(Exception) as caught:
        platforms.load(platform, source, options)
    words = str(caught.value)
    path = next((value for value in options.values() if isinstance(value, str)), source)
    assert path in words
    assert "{} {}".format(framework, version(framework)) in words


# pytest calls a test skipped that has no parameters, and none may be.
if not DTYPES:
    del test_dtypes
if not BAD:
    del test_a_file_that_cannot_be_read_is_refused_with_its_path_and_the_version
