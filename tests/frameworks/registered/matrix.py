"""A platform that is not opexec's own, named as the module that it is: a matrix and what is added, of an .npz file. Python >= 3.7."""

import zipfile

import numpy as np

from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_options, inputs_by_name

VERSION = "1.2.3"


def load(source, options):
    check_options("matrix", options, ("threads",))
    try:
        with np.load(source) as file:
            return Model(file["weights"], file["bias"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RuntimeError("matrix {} cannot read {}: {}".format(VERSION, source, error)) from error


class Model(Platform):
    framework, version = "matrix", VERSION

    def __init__(self, weights, bias):
        self._weights, self._bias = weights, bias
        rows, columns = weights.shape
        self.inputs = [{"name": "x", "dtype": "float32", "shape": ["n", rows]}]
        self.outputs = [{"name": "y", "dtype": "float32", "shape": ["n", columns]}]

    def bind(self, args, kwargs):
        return inputs_by_name(["x"], args, kwargs)["x"]

    def run(self, bound, reserve):
        shape = (len(bound), self._weights.shape[1])
        outputs = reserve((("y", np.dtype("float32"), shape),))
        np.matmul(bound, self._weights, out=outputs["y"])
        outputs["y"] += self._bias
        return outputs
