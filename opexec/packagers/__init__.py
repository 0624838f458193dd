"""Packagers: a function for each platform that writes a model package (docs/packages.md), tries it on its test data in a worker, and leaves nothing if it is wrong."""

from .code import create_python_package, create_pytorch_package
from .files import create_jax_package, create_onnx_package, create_sklearn_package
from .keras import create_keras_package
from .tensorflow import create_tensorflow_package
from .torch import create_torch_package, create_torchscript_package

__all__ = [
    "create_jax_package",
    "create_keras_package",
    "create_onnx_package",
    "create_python_package",
    "create_pytorch_package",
    "create_sklearn_package",
    "create_tensorflow_package",
    "create_torch_package",
    "create_torchscript_package",
]
