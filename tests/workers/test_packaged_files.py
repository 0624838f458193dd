"""What a package makes of the result of a model that knows nothing of packages. Python >= 3.7."""

import types

import numpy as np
import pytest

from opexec.workers.platforms import Platform
from opexec.workers.platforms.packaged_files import Model


class Giving(Platform):
    """Gives this, whatever comes."""

    framework, version = "giving", "1"

    def __init__(self, result):
        self.result = result

    def run(self, bound, reserve):
        return self.result


def given(result, *outputs):
    """What a package with these outputs (name, dtype) gives where its model gives `result`."""
    specs = [{"name": name, "dtype": dtype, "shape": None} for name, dtype in outputs]
    contents = types.SimpleNamespace(inputs=[], outputs=specs, settings={})
    return Model(Giving(result), contents).run({}, None)


@pytest.mark.parametrize(
    "texts",
    [["a"], ["a", "zero\0"], [b"a", "b\u00fc".encode()], [["a", "b"], ["c", "d"]], ("a", "b"), [], "alone"],
    ids=repr,
)
def test_a_list_of_texts_is_one_output(texts):
    (got,) = given(texts, ("y", "string")).values()
    expected = np.array(texts, object)
    assert got.dtype == object and got.shape == expected.shape
    as_texts = [one.decode() if isinstance(one, bytes) else one for one in expected.ravel().tolist()]
    assert got.ravel().tolist() == as_texts


def test_a_list_of_arrays_is_several_outputs():
    x, texts = np.ones(2), np.array(["a"], object)
    assert list(given([x, texts], ("x", "float64"), ("t", "string"))) == ["x", "t"]
    assert given([texts], ("t", "string"))["t"].tolist() == ["a"]
    assert given((x,), ("x", "float64"))["x"] is x and given(x, ("x", "float64"))["x"] is x
    with pytest.raises(TypeError, match=r"the model gave 2 outputs; the package's output_spec has \['t'\]"):
        given([texts, texts], ("t", "string"))
