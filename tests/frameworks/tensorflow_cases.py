"""The tensorflow platform, with a real TensorFlow 1 or 2. Run by test_frameworks.py in environments of several versions; Python >= 3.7.

OPEXEC_TEST_MODELS names a folder with what tensorflow_models.py writes in each of these versions, one folder a version.
"""

import os
import sys

import numpy as np
import pytest
import tensorflow

from opexec.ipc import wire
from opexec.workers import platforms
from opexec.workers.arrays import address
from opexec.workers.platforms import tensorflow_session

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from subject import affine, rows
from tensorflow_models import (
    DTYPES,
    IS_2,
    affine_graph,
    affine_with_variables,
    echo_graph,
    frozen,
    save_affine,
    saved_by_session,
)

tf = tensorflow.compat.v1
F4 = np.float32
VERSION = tuple(int(part) for part in tensorflow.__version__.split(".")[:2])


def load(source, **options):
    return platforms.load("tensorflow", str(source), options)


def call(model, *args, **kwargs):
    return model.run(model.bind(list(args), kwargs), None)


def aligned(array, offset=0):
    """A copy that begins `offset` bytes behind a multiple of 64."""
    raw = np.empty(array.nbytes + 128, np.uint8)
    begin = -raw.__array_interface__["data"][0] % 64 + offset
    copy = raw[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def same(left, right):
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.fixture
def graph(tmp_path):
    """Writes what a function builds, and gives the file."""
    return lambda build: frozen(str(tmp_path / "graph.pb"), build)


# ---- copies


def test_an_aligned_input_is_read_where_it_lies(graph):
    """Its memory changes while the graph runs, between two operations that look at it, and the second one sees it."""

    def build():
        x = tf.placeholder(tf.float32, [None], name="x")
        first = tf.reduce_sum(x, name="first")
        with tf.control_dependencies([tf.py_func(change, [first], tf.float32)]):
            tf.reduce_sum(x + 0, name="second")

    x = aligned(np.ones(1000, F4))

    def change(first):
        x[...] = 5
        return first

    model = load(graph(build), outputs=["first", "second"])
    bound = model.bind([x], {})
    assert call_sums(model, bound, x) == (1000, 5000)


def call_sums(model, bound, x):
    x[...] = 1
    result = model.run(bound, None)
    return float(result["first"]), float(result["second"])


def test_what_is_not_aligned_is_read_too(graph):
    model = load(graph(affine_graph))
    for offset in (4, 16, 32, 60):
        x = aligned(rows(5), offset)
        bound = model.bind([x], {})
        for _ in range(2):
            assert same(model.run(bound, None)["y"], affine(x))
            x += 1


def test_a_bound_input_is_looked_at_in_each_run(graph):
    model = load(graph(affine_graph))
    x = aligned(rows(3))
    bound = model.bind([x], {})
    for round in range(5):
        x[...] = rows(3) * round
        assert same(model.run(bound, None)["y"], affine(x))


def test_an_input_is_never_written(graph):
    def build():
        # What TensorFlow would compute in place, if the memory were its own.
        x = tf.placeholder(tf.float32, [None, 4], name="x")
        tf.exp(tf.nn.relu(tf.identity(x) + 1.0), name="y")

    model = load(graph(build))
    x = aligned(rows(1000) / 100)
    kept = x.copy()
    bound = model.bind([x], {})
    for _ in range(3):
        model.run(bound, None)
        assert same(x, kept)


def test_an_output_is_tensorflows_own_memory_and_no_copy_of_it(graph):
    def build():
        x = tf.placeholder(tf.float32, [None], name="x")
        tf.add(x, 1.0, name="y")

    (y,) = call(load(graph(build)), aligned(np.ones(1 << 20, F4))).values()
    # A copy that numpy made would own its memory.
    assert not y.flags.owndata and address(y) % 64 == 0


def test_outputs_of_earlier_runs_keep_their_values(graph):
    model = load(graph(affine_graph))
    x = aligned(rows(3))
    bound = model.bind([x], {})
    kept = []
    for round in range(20):
        x[...] = round
        kept.append(model.run(bound, None)["y"])
    for round, y in enumerate(kept):
        assert same(y, affine(np.full((3, 4), round, F4)))


def test_an_output_that_is_an_input(graph):
    def build():
        x = tf.placeholder(tf.float32, [None], name="x")
        tf.identity(x, name="y")

    model = load(graph(build), outputs={"y": "y", "x": "x:0"})
    x = aligned(np.arange(10, dtype=F4))
    bound = model.bind([x], {})
    for round in range(3):
        x[...] = round
        result = model.run(bound, None)
        assert same(result["x"], x) and same(result["y"], x)


# ---- graphs


def test_placeholders_and_ends_are_found(graph):
    def build():
        a = tf.placeholder(tf.float32, [2, None], name="scope/a")
        b = tf.placeholder(tf.int32, [], name="b")
        tf.placeholder(tf.float32, [], name="of_no_use")
        tf.placeholder_with_default(False, [], name="training")
        tf.constant(1.0, name="lonely")
        tf.group(tf.add(a, tf.cast(b, tf.float32), name="scope/sum"), name="nothing")
        tf.split(a, 2, name="halves")

    model = load(graph(build))
    assert (model.framework, model.version) == ("tensorflow", tensorflow.__version__)
    assert model.inputs == [
        {"name": "scope/a", "dtype": "float32", "shape": [2, None]},
        {"name": "b", "dtype": "int32", "shape": []},
    ]
    assert model.outputs == [
        {"name": "scope/sum", "dtype": "float32", "shape": [2, None]},
        {"name": "halves", "dtype": "float32", "shape": [1, None]},
        {"name": "halves:1", "dtype": "float32", "shape": [1, None]},
    ]
    a = np.arange(6, dtype=F4).reshape(2, 3)
    result = call(model, a, b=np.array(3, "i4"))
    assert same(result["scope/sum"], a + 3)
    assert same(result["halves"], a[:1]) and same(result["halves:1"], a[1:])


def test_inputs_and_outputs_by_name_of_their_nodes(graph):
    path = graph(affine_graph)
    x = rows(3)
    for options in (
        {"inputs": {"rows": "x"}, "outputs": {"result": "y"}},
        {"inputs": {"rows": "x:0"}, "outputs": {"result": "y:0"}},
    ):
        model = load(path, **options)
        assert [one["name"] for one in model.inputs + model.outputs] == ["rows", "result"]
        assert same(call(model, rows=x)["result"], affine(x))
    model = load(path, inputs=["x:0"], outputs=["y", "MatMul:0"])
    result = call(model, x=x)
    assert list(result) == ["y", "MatMul"]
    assert same(result["y"], affine(x))


def test_an_inner_node_can_be_an_input(graph):
    model = load(graph(affine_graph), inputs={"product": "MatMul"})
    product = np.ones((2, 3), F4)
    assert same(call(model, product)["y"], product + affine(np.zeros((1, 4), F4)))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"outputs": ["z"]}, "the graph has no node 'z'; .*'?y"),
        ({"inputs": {"x": "xx"}}, "the graph has no node 'xx'; near it are .*'x'"),
        ({"outputs": ["y:1"]}, "the node 'y' has 1 outputs; received 'y:1'"),
        ({"outputs": "y"}, "the option outputs is 'y'; expected {name: node} or a list"),
        ({"inputs": {"x": 3}}, "the option inputs is {'x': 3}"),
        ({"outputs": []}, r"the option outputs is \[\]"),
        ({"init_ops": ["nope"]}, "the graph has no node 'nope'"),
        ({"init_ops": "nope"}, "the option init_ops is 'nope'; expected a list"),
        ({"signature": "s"}, "the option signature is for SavedModel folders"),
        ({"tags": ["t"]}, "the option tags is for SavedModel folders"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "gpu"}, "device is 'gpu'; expected 'cpu', 'cuda' or 'cuda:0'"),
        ({"thread": 1}, "no option 'thread'.*threads"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(options, words, graph):
    with pytest.raises(ValueError, match="(?s)" + words):
        load(graph(affine_graph), **options)


def test_tables_are_initialised_by_init_ops(graph):
    def build():
        keys = tf.placeholder(tf.string, [None], name="keys")
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)), -1
        )
        tf.identity(table.lookup(keys), name="values")
        tf.group(table.initializer, name="init")

    path = graph(build)
    model = load(path, outputs=["values"], init_ops=["init"])
    for _ in range(2):
        result = call(model, np.array(["b", "x", "a"], object))
        assert same(result["values"], np.array([2, -1, 1], np.int64))
    with pytest.raises(Exception, match="(?i)table.*not initialized"):
        call(load(path, outputs=["values"]), np.array(["b"], object))


def test_a_graph_that_is_not_frozen(graph):
    def build():
        affine_with_variables()
        tf.group(*[one.initializer for one in tf.global_variables()], name="init")

    path = graph(build)
    words = r"no frozen graph: its outputs need variables that have no values \(bias, weights\)"
    for outputs in (None, ["y"]):
        with pytest.raises(ValueError, match=words):
            load(path, outputs=outputs)
    assert same(call(load(path, outputs=["y"], init_ops=["init"]), rows(2))["y"], affine(rows(2)))


def test_variables_that_no_output_needs(graph):
    def build():
        affine_with_variables()  # left from training
        x = tf.get_default_graph().get_tensor_by_name("x:0")
        tf.add(x, 1.0, name="frozen")
        tf.multiply(
            tf.identity(tf.get_default_graph().get_tensor_by_name("y:0"), name="given"), 2.0, name="twice"
        )

    path = graph(build)
    assert same(call(load(path, outputs=["frozen"]), rows(2))["frozen"], rows(2) + 1)
    # What is fed need not be computed.
    given = rows(2)[:, :3]
    assert same(call(load(path, inputs=["given"], outputs=["twice"]), given)["twice"], 2 * given)
    with pytest.raises(ValueError, match=r"no values \(bias, weights\)"):
        load(path, outputs=["frozen", "twice"])


def test_an_operation_of_another_version(tmp_path):
    definition = tf.GraphDef()
    node = definition.node.add()
    node.name, node.op = "y", "OperationOfTheFuture"
    path = tmp_path / "future.pb"
    path.write_bytes(definition.SerializeToString())
    words = r"(?s)tensorflow {} cannot load .*future.pb: .*OperationOfTheFuture.*Environment\(".format(
        tensorflow.__version__
    )
    with pytest.raises(RuntimeError, match=words):
        load(path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x0a\x03"], ids=["empty", "junk", "cut"])
def test_a_file_that_is_no_graph(content, tmp_path):
    path = tmp_path / "junk.pb"
    path.write_bytes(content)
    with pytest.raises(
        RuntimeError, match="tensorflow {} cannot load .*junk.pb".format(tensorflow.__version__)
    ):
        load(path)


def test_a_graph_without_anything_to_give(graph):
    with pytest.raises(ValueError, match="name what comes out by the option outputs: it has c"):
        load(graph(lambda: tf.constant(1.0, name="c")))
    model = load(graph(lambda: tf.constant(1.0, name="c")), outputs=["c"])
    assert model.inputs == [] and same(call(model)["c"], np.array(1.0, F4))


# ---- SavedModels


def versions():
    return sorted(os.listdir(os.environ["OPEXEC_TEST_MODELS"]))


def unreadable(version):
    """Whether this TensorFlow is too old for what that one writes."""
    return VERSION < tuple(int(part) for part in version.split(".")[:2]) and version.startswith("2.21")


@pytest.mark.parametrize("version", versions())
@pytest.mark.parametrize("signature, name, sign", [(None, "y", 1), ("negated", "z", -1)])
def test_a_saved_model_of_each_version(version, signature, name, sign):
    path = os.path.join(os.environ["OPEXEC_TEST_MODELS"], version, "saved_model")
    if version.startswith("1.") and signature:
        name, sign = "z", 1  # the same tensor under another name
    if unreadable(version):
        with pytest.raises(
            RuntimeError,
            match=r"tensorflow {} cannot load .*, which tensorflow {} wrote: .*Environment\(".format(
                tensorflow.__version__, version
            ),
        ):
            load(path)
        return
    model = load(path, **({"signature": signature} if signature else {}))
    assert model.inputs == [{"name": "x", "dtype": "float32", "shape": [None, 4]}]
    assert model.outputs == [{"name": name, "dtype": "float32", "shape": [None, 3]}]
    for count in (3, 0, 1):
        x = aligned(rows(count))
        bound = model.bind([], {"x": x})
        for _ in range(2):
            x += 1
            assert same(model.run(bound, None)[name], sign * affine(x))
    # The file in the folder stands for the folder.
    assert same(call(load(os.path.join(path, "saved_model.pb")), rows(2))["y"], affine(rows(2)))


@pytest.mark.parametrize("version", versions())
def test_a_graph_of_each_version(version):
    path = os.path.join(os.environ["OPEXEC_TEST_MODELS"], version, "graph.pb")
    if unreadable(version):
        with pytest.raises(
            RuntimeError, match=r"tensorflow {} cannot load .*Environment\(".format(tensorflow.__version__)
        ):
            load(path)
        return
    assert same(call(load(path), rows(3))["y"], affine(rows(3)))


def test_signature_and_tags_that_are_not_there(tmp_path):
    path = save_affine(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="no signature 'other'; it has negated, serving_default: choose one"):
        load(path, signature="other")
    with pytest.raises(ValueError, match=r"no graph with the tags \['train'\]; it has \[\['serve'\]\]"):
        load(path, tags=["train"])
    with pytest.raises(ValueError, match="the option tags is 'serve'; expected a list of tags"):
        load(path, tags="serve")
    assert same(call(load(path, tags=["serve"]), rows(1))["y"], affine(rows(1)))


def test_the_only_signature_needs_no_name_and_several_do(tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    ends = {"x": "x:0"}, {"y": "y:0"}
    saved_by_session(one, affine_with_variables, mine=ends)
    assert same(call(load(one), rows(2))["y"], affine(rows(2)))
    saved_by_session(two, affine_with_variables, mine=ends, yours=ends)
    with pytest.raises(ValueError, match="no signature 'serving_default'; it has mine, yours"):
        load(two)


def test_a_saved_model_without_signatures(tmp_path):
    path = saved_by_session(str(tmp_path / "model"), affine_with_variables)
    with pytest.raises(ValueError, match="no signature that could be called"):
        load(path)
    model = load(path, inputs={"rows": "x"}, outputs={"result": "y"})
    assert same(call(model, rows(2))["result"], affine(rows(2)))


def test_inputs_and_outputs_come_in_the_order_of_the_graph(tmp_path):
    def build():
        z, a, m = [tf.placeholder(tf.float32, [], name=name) for name in "zam"]
        tf.stack([z, a, m], name="both")
        tf.identity(z - a, name="first")
        tf.identity(a - m, name="also")

    names = {name: name + ":0" for name in ("also", "both", "first")}
    path = saved_by_session(
        str(tmp_path / "model"), build, serving_default=({name: name + ":0" for name in "amz"}, names)
    )
    model = load(path)
    assert [one["name"] for one in model.inputs] == ["z", "a", "m"]
    assert [one["name"] for one in model.outputs] == ["both", "first", "also"]
    result = call(model, np.array(5, F4), np.array(3, F4), np.array(1, F4))
    assert result["both"].tolist() == [5, 3, 1]


def test_tables_and_assets_of_a_saved_model(tmp_path):
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("one\ntwo\n")

    def build():
        keys = tf.placeholder(tf.string, [None], name="keys")
        initializer = tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )
        tf.identity(tf.lookup.StaticHashTable(initializer, -1).lookup(keys), name="ids")

    path = saved_by_session(
        str(tmp_path / "model"), build, serving_default=({"keys": "keys:0"}, {"ids": "ids:0"})
    )
    result = call(load(path), np.array(["two", "three", "one"], object))
    assert result["ids"].tolist() == [1, -1, 0]


def test_a_saved_model_with_an_operation_of_another_version(tmp_path):
    from tensorflow.core.protobuf import saved_model_pb2

    path = save_affine(str(tmp_path / "model"))
    file = os.path.join(path, "saved_model.pb")
    written = saved_model_pb2.SavedModel()
    with open(file, "rb") as opened:
        written.ParseFromString(opened.read())
    meta = written.meta_graphs[0]
    node = meta.graph_def.node.add()
    node.name, node.op = "future", "OperationOfTheFuture"
    meta.meta_info_def.tensorflow_version = "9.9.9"
    meta.meta_info_def.ClearField("stripped_op_list")
    with open(file, "wb") as opened:
        opened.write(written.SerializeToString())
    words = r"(?s)tensorflow {} cannot load .*, which tensorflow 9\.9\.9 wrote: .*OperationOfTheFuture.*==9\.9\.9".format(
        tensorflow.__version__
    )
    with pytest.raises(RuntimeError, match=words):
        load(path)


def test_a_folder_that_is_no_saved_model(tmp_path):
    with pytest.raises(ValueError, match="there is no saved_model.pb in"):
        load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(RuntimeError, match="its saved_model.pb is damaged"):
        load(tmp_path)


# ---- dtypes and shapes


@pytest.mark.parametrize("name", [name for name in DTYPES if name not in wire.EXTENSIONS])
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 4)])
def test_every_dtype(name, shape, graph):
    model = load(graph(echo_graph(name)))
    assert model.inputs[0]["dtype"] == model.outputs[0]["dtype"] == name
    x = aligned(np.arange(1, 1 + shape[0] * shape[1]).astype(name).reshape(shape))
    bound = model.bind([x], {})
    for _ in range(2):
        assert same(model.run(bound, None)["y"], x)
        x[...] = 0


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_every_rank(shape, graph):
    def build():
        tf.add(tf.placeholder(tf.float32, shape=None, name="x"), 1.0, name="y")

    model = load(graph(build))
    assert model.inputs == [{"name": "x", "dtype": "float32", "shape": None}]
    x = np.arange(np.prod(shape, dtype=int), dtype=F4).reshape(shape)
    assert same(call(model, x)["y"], np.asarray(x + F4(1)))


@pytest.mark.parametrize("as_bit_pattern", [False, True])
def test_bfloat16(as_bit_pattern, graph, monkeypatch):
    if as_bit_pattern:
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    model = load(graph(echo_graph("bfloat16")))
    dtype = wire.extension_dtype("bfloat16")
    assert model.inputs[0]["dtype"] == "bfloat16"
    bits = aligned(np.arange(0x3F80, 0x3F80 + 12, dtype=np.uint16).reshape(3, 4))
    bound = model.bind([bits.view(dtype)], {})
    for _ in range(2):
        y = model.run(bound, None)["y"]
        assert y.dtype == dtype and same(y.view(np.uint16), bits)
        bits += 1


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
def test_arrays_of_any_layout(change, graph):
    x = change(rows(4, 8))
    assert same(call(load(graph(echo_graph("float32"))), x)["y"], np.ascontiguousarray(x, F4))


@pytest.mark.parametrize(
    "array",
    [
        np.array(["", "a", "b\u00fc\u4e2d\U0001f600"], object),
        np.array([["one", "two"], ["x" * 1000, ""]], object),
        np.array([b"\xff\x00", b"a\x00"], object),
        np.array("alone", object),
        np.array([], object),
        np.array(["a", "b\u00fc"]),
        np.array([b"a", b"bc"]),
    ],
    ids=["object", "2-d", "bytes", "0-d", "empty", "U", "S"],
)
def test_texts(array, graph):
    def build():
        tf.identity(tf.placeholder(tf.string, shape=None, name="x"), name="y")

    model = load(graph(build))
    assert (model.inputs[0]["dtype"], model.outputs[0]["dtype"]) == ("string", "bytes")
    y = call(model, array)["y"]
    assert y.dtype == object and y.shape == array.shape
    expected = [one.encode() if isinstance(one, str) else one for one in array.ravel().tolist()]
    assert y.ravel().tolist() == expected


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
def test_wrong_inputs_are_refused_and_the_next_call_works(inputs, words, graph):
    model = load(graph(affine_graph))
    for _ in range(2):
        with pytest.raises((TypeError, ValueError), match=words):
            model.bind([], inputs)
        assert same(call(model, rows(2))["y"], affine(rows(2)))


def test_inputs_that_the_outputs_do_not_need_may_be_left_out(graph):
    def build():
        tf.placeholder(tf.float32, [], name="unused")
        factor = tf.placeholder_with_default(tf.constant(2.0), [], name="factor")
        x = tf.placeholder(tf.float32, [None], name="x")
        tf.multiply(x, factor, name="y")

    model = load(graph(build), inputs=["unused", "x", "factor"], outputs=["y"])
    assert [spec["name"] for spec in model.inputs if spec.get("optional")] == ["unused", "factor"]
    x, one, three = np.array([1, 2], F4), np.array(1, F4), np.array(3, F4)
    assert call(model, x=x)["y"].tolist() == [2, 4]
    assert call(model, one, x)["y"].tolist() == [2, 4]
    assert call(model, one, x, factor=three)["y"].tolist() == [3, 6]
    with pytest.raises(TypeError, match=r"inputs are \['unused', 'x', 'factor'\]; received \['factor'\]"):
        call(model, factor=three)


def test_a_model_that_fails_for_some_values_serves_the_next_call(graph):
    def build():
        index = tf.placeholder(tf.int32, [None], name="index")
        tf.gather(tf.constant(np.arange(4, dtype=F4)), index, name="y")

    model = load(graph(build))
    index = aligned(np.array([1, 2], "i4"))
    bound = model.bind([index], {})
    for value, fails in ((1, False), (9, True), (3, False)):
        index[...] = value
        if fails:
            with pytest.raises(tf.errors.InvalidArgumentError, match="9"):
                model.run(bound, None)
        else:
            assert same(model.run(bound, None)["y"], np.full(2, value, F4))


def test_what_cannot_be_given_is_refused(graph):
    def build():
        tf.identity(tf.placeholder(tf.qint8, [None], name="x"), name="y")

    with pytest.raises(TypeError, match=r"input 'x' \(x:0\) is of TensorFlow's kind qint8"):
        load(graph(build))


# ---- where it computes


def test_threads_are_set(graph):
    path = graph(affine_graph)
    for threads in (1, 2):
        model = load(path, threads=threads)
        config = model._session._config
        assert config.intra_op_parallelism_threads == threads
        assert config.inter_op_parallelism_threads == -1
        assert same(call(model, rows(2))["y"], affine(rows(2)))


def test_deep_graphs_with_branches_run_in_the_calling_thread(graph):
    def build():
        x = y = tf.placeholder(tf.float32, [4, 4], name="x")
        for _ in range(500):
            y = tf.matmul(y, x) + y * tf.reduce_max(y)
        tf.identity(y, name="y")

    model = load(graph(build), threads=1)
    assert same(call(model, np.zeros((4, 4), F4))["y"], np.zeros((4, 4), F4))


def test_a_gpu_that_is_not_there(graph):
    path = graph(affine_graph)
    count = len(tf.config.experimental.list_physical_devices("GPU"))
    with pytest.raises(RuntimeError, match="tensorflow .* has no GPU {}; ".format(count)):
        load(path, device="cuda:{}".format(count))
    assert same(call(load(path, device="cpu"), rows(2))["y"], affine(rows(2)))


def test_of_a_gpus_memory_no_more_is_taken_than_needed(monkeypatch):
    made = []
    monkeypatch.setattr(tf.config.experimental, "list_physical_devices", lambda kind: ["GPU 0", "GPU 1"])
    monkeypatch.setattr(tf, "Session", lambda graph, config: made.append(config))
    tensorflow_session.new_session(tf.Graph(), {"device": "cuda:1"})
    tensorflow_session.new_session(tf.Graph(), {"device": "cpu"})
    on_gpu, on_cpu = made
    assert on_gpu.gpu_options.allow_growth and on_gpu.gpu_options.visible_device_list == "1"
    assert dict(on_cpu.device_count) == {"GPU": 0}


def test_a_graph_that_names_devices_of_another_machine(graph):
    def build():
        x = tf.placeholder(tf.float32, [None], name="x")
        with tf.device("/device:GPU:3"):
            tf.add(x, 1.0, name="y")

    assert same(call(load(graph(build)), np.ones(3, F4))["y"], np.full(3, 2, F4))


def test_it_is_one_session_that_is_asked(graph):
    """What the session gives is what TensorFlow gives to whoever asks it without this platform."""
    path = graph(affine_graph)
    plain = tf.Graph()
    with plain.as_default(), tf.Session(graph=plain) as session:
        affine_graph()
        expected = session.run("y:0", {"x:0": rows(100)})
    assert same(call(load(path), rows(100))["y"], expected)
    assert tensorflow_session.Model.version == tensorflow.__version__
    assert IS_2 == (VERSION >= (2, 0))
