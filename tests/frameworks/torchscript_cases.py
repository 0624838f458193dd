"""The torchscript platform, with a real torch. Run by test_frameworks.py in environments of several versions; Python >= 3.7.

Models are made here, by the torch that reads them: files of TorchScript do not travel well between versions.
"""

import importlib.util
import sys
import warnings

import numpy as np
import pytest
import torch

from opexec.ipc import wire
from opexec.workers import platforms
from opexec.workers.structure import flatten

F4 = np.float32
HAS_ML_DTYPES = importlib.util.find_spec("ml_dtypes") is not None
VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


class Add(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x, y):
        return x + y


class Give(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x):
        return x


class Scale(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x, factor, offset, negative):
        # type: (Tensor, float, int, bool) -> Tensor
        if negative:
            x = -x
        return x * factor + offset


class Several(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x):
        return x, [x + 1, x + 2], (x.t(), 3, 4.5)


class ByName(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x):
        return {"double": x * 2, "square": x * x}


class Repeat(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x, sizes):
        # type: (Tensor, List[int]) -> Tensor
        return x.repeat(sizes)


class Join(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x, mark):
        # type: (List[str], str) -> List[str]
        joined = [mark]
        for text in x:
            joined.append(text + mark)
        return joined


class Fail(torch.jit.ScriptModule):
    @torch.jit.script_method
    def forward(self, x, y):
        return torch.mm(x, y)


def load(module, folder, **options):
    path = str(folder / "model.pt")
    module.save(path)
    return platforms.load("torchscript", path, options)


def call(model, *args, **kwargs):
    return model.run(model.bind(list(args), kwargs), None)


def rows(count):
    return np.arange(count * 8, dtype=F4).reshape(count, 8)


def same(tensor, array):
    (leaf,) = flatten(tensor)[1]
    return leaf.dtype == array.dtype and leaf.shape == array.shape and leaf.tobytes() == array.tobytes()


def test_inputs_are_read_where_they_lie(tmp_path):
    model = load(Add(), tmp_path)
    assert (model.framework, model.version) == ("torch", torch.__version__)
    assert model.inputs is None and model.outputs is None
    x, y = rows(3), rows(3)
    bound = model.bind([x], {"y": y})
    for value in (1, 2, 3):
        x[...] = value
        assert same(model.run(bound, None), x + y)


def test_an_output_may_be_the_input_and_is_its_memory(tmp_path):
    x = rows(3)
    (leaf,) = flatten(call(load(Give(), tmp_path), x))[1]
    assert np.shares_memory(leaf, x)


@pytest.mark.parametrize(
    "name",
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split(),
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_every_dtype_and_rank(name, shape, tmp_path):
    model = load(Give(), tmp_path)
    x = np.arange(1, 1 + int(np.prod(shape, dtype=np.int64))).astype(name).reshape(shape)
    if not hasattr(torch, name) or (VERSION < (1, 6) and "complex" in name):
        with pytest.raises(TypeError, match="input 'x': torch .* makes no tensor of " + name):
            model.bind([], {"x": x})
        return
    assert same(call(model, x), x)


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
def test_arrays_of_any_layout_and_no_warning(change, tmp_path):
    model = load(Add(), tmp_path)
    x = change(rows(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(call(model, x, x), np.ascontiguousarray(x, F4) * 2)


def test_results_keep_their_structure(tmp_path):
    model = load(Several(), tmp_path)
    x = rows(2)
    names, leaves, _ = flatten(call(model, x))
    assert names == ("output_0", "output_1/0", "output_1/1", "output_2/0", "output_2/1", "output_2/2")
    for leaf, expected in zip(leaves, (x, x + 1, x + 2, x.T, 3, 4.5)):
        np.testing.assert_array_equal(leaf, expected)


def test_dicts_keep_their_keys(tmp_path):
    names, leaves, _ = flatten(call(load(ByName(), tmp_path), rows(2)))
    assert sorted(names) == ["double", "square"]
    np.testing.assert_array_equal(leaves[names.index("double")], rows(2) * 2)


def test_numbers_are_taken_from_arrays_of_rank_0_at_each_run(tmp_path):
    model = load(Scale(), tmp_path)
    x, factor = rows(2), np.array(2.0, F4)
    bound = model.bind([], {"x": x, "factor": factor, "offset": np.array(10), "negative": np.array(True)})
    for value in (2, 3):
        factor[...] = value
        assert same(model.run(bound, None), -x * F4(value) + 10)


def test_lists_of_numbers_are_taken_from_arrays_at_each_run(tmp_path):
    model = load(Repeat(), tmp_path)
    sizes = np.array([2, 1])
    bound = model.bind([rows(1), sizes], {})
    for count in (2, 3):
        sizes[0] = count
        assert same(model.run(bound, None), np.tile(rows(1), (count, 1)))


def test_texts(tmp_path):
    model = load(Join(), tmp_path)
    texts, mark = np.array(["a", "", "b\u00fc\u4e2d"], object), np.array("!", object)
    assert call(model, texts, mark) == ["!", "a!", "!", "b\u00fc\u4e2d!"]
    assert call(model, mark=mark, x=np.array(["a"])) == ["!", "a!"]


@pytest.mark.parametrize("with_ml_dtypes", [False] + [True] * HAS_ML_DTYPES)
@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_kinds_that_numpy_lacks(kind, with_ml_dtypes, tmp_path, monkeypatch):
    if not with_ml_dtypes:
        monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    model = load(Give(), tmp_path)
    bits = np.dtype("u2" if kind == "bfloat16" else "u1")
    x = np.arange(6, dtype=bits).reshape(2, 3)
    extended = x.view(wire.extension_dtype(kind))
    assert (extended.dtype.names is None) == with_ml_dtypes
    if not hasattr(torch, kind) or VERSION < (1, 7):
        with pytest.raises(TypeError, match="input 'x': torch .* makes no tensor of " + kind):
            model.bind([extended], {})
        return
    result = call(model, extended)
    assert result.dtype is getattr(torch, kind)
    (leaf,) = flatten(result)[1]
    assert wire.extension_name(leaf.dtype) == kind
    assert same(leaf.view(bits), x)
    assert np.shares_memory(leaf, x)


def test_the_model_is_in_evaluation_mode_and_keeps_no_graph(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 4)
            self.dropout = torch.nn.Dropout(0.9)

        def forward(self, x):
            return self.dropout(self.layer(x))

    net = Net().eval()
    x = rows(3)
    expected = net(torch.from_numpy(x)).detach().numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, torch.from_numpy(x))
    result = call(load(traced, tmp_path), x)
    assert not result.requires_grad
    np.testing.assert_allclose(flatten(result)[1][0], expected, rtol=1e-5)


def test_a_call_that_fails_leaves_the_next_one_right(tmp_path):
    model = load(Fail(), tmp_path)
    with pytest.raises(RuntimeError):
        call(model, rows(2), rows(3))
    with pytest.raises(Exception, match="y"):
        call(model, rows(2))
    for args, named in (([], {"z": rows(1)}), ([rows(1)], {})):
        with pytest.raises(Exception, match="at most 3 argument.* received 4"):  # self is one of them
            call(model, rows(2), rows(8), *args, **named)
    assert same(call(model, rows(2), rows(8)), rows(2) @ rows(8))


def test_weights_alone_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), str(path))
    with pytest.raises(
        ValueError, match=r"weights.pth holds no TorchScript, .*(state_dict).*'file.py:factory'"
    ):
        platforms.load("torchscript", str(path), {})


def test_a_file_of_anything_is_refused(tmp_path):
    path = tmp_path / "junk.pt"
    path.write_bytes(b"junk" * 100)
    with pytest.raises(ValueError, match="junk.pt holds no TorchScript"):
        platforms.load("torchscript", str(path), {})


def test_threads_are_set(tmp_path):
    load(Add(), tmp_path, threads=1)
    assert torch.get_num_threads() == 1


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'thread'"):
        load(Add(), tmp_path, thread=1)
