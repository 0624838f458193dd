"""The torch platform beyond what all platforms promise, with a real torch. Run by test_frameworks.py; Python >= 3.7."""

import os
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from opexec.workers import platforms
from opexec.workers.structure import flatten

F4 = np.float32
VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
EXPORTS = VERSION >= (2, 1)


def factory(folder, code):
    """A file whose factory is called `make`."""
    path = folder / "net_of_a_test.py"
    path.write_text("import torch\n" + textwrap.dedent(code))
    return str(path) + ":make"


def load(source, **options):
    return platforms.load("torch", str(source), options)


def call(model, *args, **kwargs):
    return model.run(model.bind(list(args), kwargs), None)


def rows(count):
    return np.arange(count * 8, dtype=F4).reshape(count, 8)


LINEAR = "def make(): return torch.nn.Linear(8, 2)"


def test_inputs_are_tensors_over_the_arrays_and_need_no_graph(tmp_path):
    model = load(factory(tmp_path, "def make(): return lambda x, y=None: (x, y)"))
    x = rows(2)
    first, second = call(model, x, y=x)
    assert first.data_ptr() == second.data_ptr() == x.__array_interface__["data"][0]
    result = call(load(factory(tmp_path, LINEAR)), x)
    assert not result.requires_grad


def test_a_module_is_switched_to_evaluation(tmp_path):
    model = load(factory(tmp_path, "def make(): return torch.nn.Dropout(0.9).train()"))
    np.testing.assert_array_equal(call(model, rows(50)).numpy(), rows(50))


def test_a_callable_that_is_no_module(tmp_path):
    source = factory(tmp_path, "def make(): return lambda a, b: {'sum': a + b, 'both': [a, b]}")
    names, leaves, _ = flatten(call(load(source), b=rows(1), a=rows(1)))
    assert names == ("sum", "both/0", "both/1")
    np.testing.assert_array_equal(leaves[0], 2 * rows(1))
    with pytest.raises(
        TypeError, match="state_dict was given, .* returned an object of type function; expected"
    ):
        load(source, state_dict="weights.pt")


def test_texts_come_as_texts(tmp_path):
    source = factory(tmp_path, "def make(): return lambda words, mark: [word + mark for word in words]")
    assert call(load(source), np.array(["a", "b\u00fc"], object), np.array("!", object)) == ["a!", "b\u00fc!"]


def test_weights_from_a_checkpoint_and_from_a_state_dict(tmp_path):
    layer = torch.nn.Linear(8, 2)
    expected = layer(torch.from_numpy(rows(3))).detach().numpy()
    source = factory(tmp_path, LINEAR)
    for saved in (layer.state_dict(), {"epoch": 3, "state_dict": layer.state_dict()}):
        path = str(tmp_path / "weights.pth")
        torch.save(saved, path)
        np.testing.assert_array_equal(call(load(source, state_dict=path), rows(3)).numpy(), expected)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = str(tmp_path / "weights.pt")
    torch.save(torch.nn.Linear(8, 3).state_dict(), path)
    with pytest.raises(
        RuntimeError, match=r"(?s)weights in .*weights\.pt do not fit the Linear.*torch.*size mismatch"
    ):
        load(factory(tmp_path, LINEAR), state_dict=path)
    torch.save({"weigth": torch.ones(2, 8)}, path)
    with pytest.raises(RuntimeError, match=r"(?s)do not fit the Linear.*bias.*weigth"):
        load(factory(tmp_path, LINEAR), state_dict=path)


def test_weights_that_are_none_are_refused(tmp_path):
    source = factory(tmp_path, LINEAR)
    path = str(tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError, match=r"no such file of weights: .*weights\.pt"):
        load(source, state_dict=path)
    torch.save([torch.ones(2)], path)
    with pytest.raises(TypeError, match=r"weights\.pt holds an object of type list; expected a state_dict"):
        load(source, state_dict=path)


def test_a_factory_that_is_not_there(tmp_path):
    source = factory(tmp_path, LINEAR).replace(":make", ":mkae")
    with pytest.raises(AttributeError, match="has no 'mkae'; it defines make"):
        load(source)


def test_a_device_that_is_not_there(tmp_path):
    with pytest.raises(
        RuntimeError, match=r"the device 'cuda:7' was asked for, and torch .* sees \d CUDA devices"
    ):
        load(factory(tmp_path, LINEAR), device="cuda:7")
    for name in ("cuda:x", "gpu", 3):
        with pytest.raises(ValueError, match="the option device is {!r}; expected 'cpu'".format(name)):
            load(factory(tmp_path, LINEAR), device=name)


def test_threads_are_set(tmp_path):
    load(factory(tmp_path, LINEAR), threads=1)
    assert torch.get_num_threads() == 1


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


# ---- files of torch.export


class Several(torch.nn.Module):
    def forward(self, x, pair, *, extra):
        result = x + pair[0] * pair[1]["b"]
        return {"sum": result, "parts": (extra * 2, result.to(torch.int64))}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("exported") / "several.pt2")
    x, first, second, extra = (torch.full((2, 3), value) for value in (1.0, 2.0, 3.0, 4.0))
    size = torch.export.Dim("size")
    program = torch.export.export(
        Several(),
        (x, [first, {"b": second}]),
        {"extra": extra.double()},
        dynamic_shapes={"x": {0: size}, "pair": [{0: size}, {"b": {0: size}}], "extra": None},
    )
    torch.export.save(program, path)
    return path


if EXPORTS:

    def test_specs_of_nested_inputs_and_outputs(exported):
        model = load(exported)
        symbol = model.inputs[0]["shape"][0]
        assert isinstance(symbol, str)
        assert model.inputs == [
            {"name": "x", "dtype": "float32", "shape": [symbol, 3]},
            {"name": "pair_0", "dtype": "float32", "shape": [symbol, 3]},
            {"name": "pair_1_b", "dtype": "float32", "shape": [symbol, 3]},
            {"name": "extra", "dtype": "float64", "shape": [2, 3]},
        ]
        assert model.outputs == [
            {"name": "sum", "dtype": "float32", "shape": [symbol, 3]},
            {"name": "parts/0", "dtype": "float64", "shape": [2, 3]},
            {"name": "parts/1", "dtype": "int64", "shape": [symbol, 3]},
        ]

    def test_nested_inputs_are_given_by_their_flat_names(exported):
        model = load(exported)
        x, extra = np.full((5, 3), 2, F4), np.ones((2, 3))
        bound = model.bind([x], {"extra": extra, "pair_0": 2 * x, "pair_1_b": 3 * x})
        for value in (2, 3):
            x[...] = value
            names, leaves, _ = flatten(model.run(bound, None))
            assert names == ("sum", "parts/0", "parts/1")
            np.testing.assert_array_equal(leaves[0], np.full((5, 3), value + 24, F4))
            np.testing.assert_array_equal(leaves[1], 2 * extra)

    def test_another_dtype_than_the_exported_one_is_refused(exported):
        x = np.ones((2, 3), F4)
        with pytest.raises(TypeError, match="input 'extra' is float32; the model takes float64"):
            load(exported).bind([x, x, x, x], {})

    def test_weights_for_a_file_that_has_its_own_are_refused(exported):
        with pytest.raises(
            ValueError, match=r"state_dict is for a factory; .*several\.pt2 has weights of its own"
        ):
            load(exported, state_dict="weights.pt")

    def test_weights_run_no_code(tmp_path):
        mark = tmp_path / "ran"
        path = str(tmp_path / "weights.pt")
        torch.save({"weight": Planted(str(mark))}, path)
        with pytest.raises(RuntimeError, match=r"torch .* cannot load the weights in .*weights\.pt"):
            load(factory(tmp_path, LINEAR), state_dict=path)
        assert not mark.exists()
        torch.load(path, weights_only=False)
        assert mark.exists()

    def test_safetensors_may_be_called_anything(tmp_path):
        from safetensors.torch import save_file

        source, path = factory(tmp_path, LINEAR), str(tmp_path / "weights.pt")
        weights = {"weight": torch.ones(2, 8), "bias": torch.zeros(2)}
        save_file(weights, path)
        assert call(load(source, state_dict=path), np.ones((1, 8), F4)).tolist() == [[8, 8]]

    def test_safetensors_that_are_none(tmp_path):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(b"junk" * 20)
        with pytest.raises(RuntimeError, match=r"torch .* cannot load the weights in .*weights\.safetensors"):
            load(factory(tmp_path, LINEAR), state_dict=str(path))

else:

    @pytest.mark.parametrize("name", ["model.pt2", "anything"])
    def test_a_torch_without_export_says_so(name, tmp_path):
        path = tmp_path / name
        with zipfile.ZipFile(str(path), "w"):
            pass
        with pytest.raises(
            RuntimeError,
            match=name + r": torch\.export came with torch 2\.1\. .*Environment\(",
        ):
            load(path)
