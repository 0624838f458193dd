"""TensorRT's engine for the tests on GPUs; subject.py says what is in here. An engine fits the GPU that it is built on."""

import os

import numpy as np
import tensorrt
from subject import BIAS, WEIGHTS, Subject, affine


def engine(folder):
    path = os.path.join(folder, "model.engine")
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    none, add = tensorrt.MatrixOperation.NONE, tensorrt.ElementWiseOperation.SUM
    x = network.add_input("x", tensorrt.float32, (-1, 4))
    weights, bias = (
        network.add_constant(array.shape, np.ascontiguousarray(array)).get_output(0)
        for array in (WEIGHTS, BIAS.reshape(1, 3))
    )
    product = network.add_matrix_multiply(x, none, weights, none).get_output(0)
    y = network.add_elementwise(product, bias, add).get_output(0)
    y.name = "y"
    network.mark_output(y)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("x", (1, 4), (3, 4), (8, 4))
    config.add_optimization_profile(profile)
    with open(path, "wb") as file:
        file.write(builder.build_serialized_network(network, config))
    return Subject(
        "tensorrt",
        path,
        affine,
        output="y",
        inputs=[{"name": "x", "dtype": "float32", "shape": [None, 4]}],
        outputs=[{"name": "y", "dtype": "float32", "shape": [None, 3]}],
        empty=False,  # no profile has it
    )


SUBJECTS = {"engine": engine}
