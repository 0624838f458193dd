"""``create_*_neuropod``, as Neuropod has them; `opexec.packagers` says what each argument means."""

from ..packagers import create_keras_package as create_keras_neuropod
from ..packagers import create_python_package as create_python_neuropod
from ..packagers import create_pytorch_package as create_pytorch_neuropod
from ..packagers import create_tensorflow_package as create_tensorflow_neuropod
from ..packagers import create_torchscript_package as create_torchscript_neuropod

__all__ = [
    "create_keras_neuropod",
    "create_python_neuropod",
    "create_pytorch_neuropod",
    "create_tensorflow_neuropod",
    "create_torchscript_neuropod",
]
