"""The jax platform beyond what all platforms promise, with a real jax. Run by test_frameworks.py."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from opexec.workers import platforms
from opexec.workers.structure import flatten

F4 = np.float32
HERE = os.path.dirname(os.path.abspath(__file__))


def factory(folder, code):
    """A file whose factory is called `make`."""
    path = folder / "net_of_a_test.py"
    path.write_text("import jax\nimport jax.numpy as jnp\n" + textwrap.dedent(code))
    return str(path) + ":make"


def load(source, **options):
    return platforms.load("jax", str(source), options)


def call(model, *args, **kwargs):
    return flatten(model.run(model.bind(list(args), kwargs), None))


def aligned(count, dtype=F4):
    raw = np.zeros(count * 8 * 8 + 64, np.uint8)
    begin = -raw.__array_interface__["data"][0] % 64
    array = raw[begin : begin + count * 8 * np.dtype(dtype).itemsize].view(dtype).reshape(count, 8)
    array[...] = np.arange(count * 8).reshape(count, 8)
    return array


def place(array):
    return array.__array_interface__["data"][0]


ECHO = "def make(): return lambda x: x"


def test_inputs_in_shared_memory_are_looked_at_where_they_lie(tmp_path):
    model, x = load(factory(tmp_path, ECHO), jit=False), aligned(64)
    over = model.run(model.bind([x], {}), None)
    assert over.unsafe_buffer_pointer() == place(x)


def test_inputs_anywhere_else_are_copied_for_each_run(tmp_path):
    model = load(factory(tmp_path, "def make(): return lambda x: x * 2"))
    raw = aligned(4)
    x = raw.reshape(-1)[1:17].reshape(2, 8)
    bound = model.bind([x], {})
    for value in (1, 2, 3):
        x[...] = value
        np.testing.assert_array_equal(flatten(model.run(bound, None))[1][0], np.full((2, 8), 2 * value, F4))


def test_a_function_that_gives_away_its_input_leaves_the_callers_alone(tmp_path):
    code = """
    from functools import partial
    def make():
        @partial(jax.jit, donate_argnums=0)
        def model(x):
            return x * 2 + 1
        return model
    """
    model, x = load(factory(tmp_path, code)), aligned(64)
    before = x.copy()
    for _ in range(3):
        np.testing.assert_array_equal(call(model, x)[1][0], before * 2 + 1)
        np.testing.assert_array_equal(x, before)


COUNTING = """
traced = []
def make():
    def model(x):
        traced.append(1)
        return x + len(traced)
    return {}
"""


@pytest.mark.parametrize(
    "returned, options, last", [("model", {}, 1), ("jax.jit(model)", {}, 1), ("model", {"jit": False}, 3)]
)
def test_a_function_is_compiled_once_unless_it_should_not_be(returned, options, last, tmp_path):
    model, x = load(factory(tmp_path, COUNTING.replace("{}", returned)), **options), aligned(2)
    for _ in range(3):
        got = call(model, x)[1][0]
    np.testing.assert_array_equal(got, x + last)


def test_static_arguments_of_a_jitted_function_stay_static(tmp_path):
    code = """
    def make():
        def model(x, *, double=True):
            return x * 2 if double else x
        return jax.jit(model, static_argnames="double")
    """
    np.testing.assert_array_equal(call(load(factory(tmp_path, code)), aligned(2))[1][0], aligned(2) * 2)


def test_results_keep_their_structure(tmp_path):
    code = "def make(): return lambda x: {'a': x, 'b': [x + 1, (x.sum(), None)]}"
    names, leaves, _ = call(load(factory(tmp_path, code)), aligned(2))
    assert names == ("a", "b/0", "b/1/0")
    assert float(leaves[2]) == aligned(2).sum()


def test_texts_are_refused(tmp_path):
    with pytest.raises(TypeError, match="input 'x' is text; jax has arrays of numbers and bools alone"):
        load(factory(tmp_path, ECHO)).bind([], {"x": np.array(["a"], object)})


ALONE = """
import sys; sys.path.append({here!r})
import importlib.util, os, run
spec = importlib.util.spec_from_file_location("foreign", os.path.join(run.ROOT, "tests", "foreign", "run.py"))
foreign = importlib.util.module_from_spec(spec)
spec.loader.exec_module(foreign)
foreign.install_as_in_a_worker()
import numpy as np
from opexec.workers import platforms
from opexec.workers.structure import flatten

def call(model, x):
    return flatten(model.run(model.bind([x], {{}}), None))[1][0]

source = {source!r}
"""


def alone(source, code, **variables):
    """What some lines of code print in a process in which jax was not used before."""
    finished = subprocess.run(
        [sys.executable, "-c", ALONE.format(here=HERE, source=source) + textwrap.dedent(code)],
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout
    return finished.stdout.split()


def test_64_bit_types_are_taken_where_they_are_switched_on(tmp_path):
    code = """
    model = platforms.load("jax", source, {})
    for dtype in "int64 uint64 float64 complex128".split():
        x = np.arange(3).astype(dtype) + 2**40
        got = call(model, x)
        assert got.dtype == x.dtype and (got == x).all(), (dtype, got)
        print(dtype)
    """
    printed = alone(factory(tmp_path, ECHO), code, JAX_ENABLE_X64="1")
    assert printed == ["int64", "uint64", "float64", "complex128"]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_set(threads, tmp_path):
    code = """
    call(platforms.load("jax", source, {"threads": %d}), np.ones((4, 4), "f4"))
    names = [open("/proc/self/task/" + one + "/comm").read().strip() for one in os.listdir("/proc/self/task")]
    print(names.count("tf_XLAEigen"))
    """
    assert alone(factory(tmp_path, ECHO), code % threads) == [str(threads)]


def test_devices_that_are_not_there(tmp_path):
    source = factory(tmp_path, ECHO)
    with pytest.raises(
        RuntimeError, match="the device 'cuda:0' was asked for, and jax .* has none of that kind"
    ):
        load(source, device="cuda:0")
    for name in ("tpu", "cpu:9"):
        with pytest.raises(ValueError, match="the option device is {!r}; expected 'cpu'".format(name)):
            load(source, device=name)


# ---- files of jax.export


def exported(folder, function, *args, **kwargs):
    path = folder / "model.stablehlo"
    path.write_bytes(
        export.export(jax.jit(function), platforms=kwargs.pop("platforms", None))(*args, **kwargs).serialize()
    )
    return path


def test_specs_and_names_of_several_inputs(tmp_path):
    n, m = export.symbolic_shape("n, m")
    shape = jax.ShapeDtypeStruct
    path = exported(
        tmp_path,
        lambda x, pair, *, scale: {
            "sum": x + pair["a"],
            "rest": (pair["b"].astype(jnp.bfloat16), jnp.concatenate([x, x]) * scale),
        },
        shape((n, 3), F4),
        {"a": shape((n, 3), F4), "b": shape((m,), np.int32)},
        scale=shape((), F4),
    )
    model = load(path)
    assert model.inputs == [
        {"name": "input_0", "dtype": "float32", "shape": ["n", 3]},
        {"name": "input_1/a", "dtype": "float32", "shape": ["n", 3]},
        {"name": "input_1/b", "dtype": "int32", "shape": ["m"]},
        {"name": "scale", "dtype": "float32", "shape": []},
    ]
    assert model.outputs == [
        {"name": "rest/0", "dtype": "bfloat16", "shape": ["m"]},
        {"name": "rest/1", "dtype": "float32", "shape": [None, 3]},
        {"name": "sum", "dtype": "float32", "shape": ["n", 3]},
    ]
    x, b = np.ones((2, 3), F4), np.arange(4, dtype=np.int32)
    arrays = {"input_0": x, "input_1/a": 2 * x, "input_1/b": b, "scale": np.array(5, F4)}
    names, leaves, _ = call(model, **arrays)
    assert list(names) == [spec["name"] for spec in model.outputs]
    np.testing.assert_array_equal(leaves[1], np.full((4, 3), 5, F4))
    np.testing.assert_array_equal(leaves[2], 3 * x)
    assert [leaf.dtype.name for leaf in leaves] == [spec["dtype"] for spec in model.outputs]
    with pytest.raises(
        TypeError, match=r"the model's inputs are \['input_0', 'input_1/a', .* received \['input_0'\]"
    ):
        model.bind([x], {})


def test_a_function_for_another_device_is_refused(tmp_path):
    path = exported(tmp_path, lambda x: x, jax.ShapeDtypeStruct((2,), F4), platforms=["cuda"])
    with pytest.raises(
        RuntimeError, match=r"model\.stablehlo was exported for cuda, and the device is a cpu"
    ):
        load(path)


def test_the_option_jit_is_refused_for_a_file(tmp_path):
    path = exported(tmp_path, lambda x: x, jax.ShapeDtypeStruct((2,), F4))
    with pytest.raises(ValueError, match="the option jit is for a factory"):
        load(path, jit=False)
