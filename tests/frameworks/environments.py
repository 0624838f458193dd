"""The environments that the tests of platforms run in: the oldest and the newest version of each framework, with the Python each needs.

Each is asked for in this one form everywhere, so that it is built once and then comes from the cache.
"""

from __future__ import annotations

from pathlib import Path

from opexec import BuildError, Environment
from tests.absent import absent

#: What the cases that run inside an environment need.
TOOLS = ("hypothesis", "pytest", "pytest-timeout")

#: A CPU build of it is what pip's find-links folder may hold; a range could resolve to a build with CUDA, of several GB.
TORCH = "torch==2.13.0"
JAX = "jax>=0.12,<0.13"

ENVIRONMENTS = {
    "tensorflow-1.15": Environment(
        "3.7", ["tensorflow==1.15.5", "protobuf<3.21", "numpy<1.19", "h5py<3", *TOOLS]
    ),
    "tensorflow-2.4": Environment("3.8", ["tensorflow-cpu==2.4.4", "protobuf<3.21", *TOOLS]),
    "tensorflow-2.21": Environment("3.12", ["tensorflow-cpu>=2.21,<2.22", *TOOLS]),  # brings Keras 3
    "keras-jax": Environment("3.12", ["keras>=3", JAX, *TOOLS]),
    "keras-torch": Environment("3.11", ["keras>=3", TORCH, *TOOLS]),
    "torch-1.4": Environment("3.8", ["torch==1.4.0", *TOOLS]),
    # The newest that is known to read TorchScript of 2019: 2.13 does not.
    "torch-1.5": Environment("3.8", ["torch==1.5.1", *TOOLS]),
    "torch-2.13": Environment("3.11", [TORCH, "ml-dtypes", "safetensors", *TOOLS]),
    "caffe2": Environment("3.8", ["torch==1.4.0", "protobuf<3.21", "future", "six", *TOOLS]),
    "jax": Environment("3.12", [JAX, "flatbuffers", "ml-dtypes", *TOOLS]),
    "onnxruntime-1.4": Environment("3.7", ["onnxruntime==1.4.0", *TOOLS]),
    "onnxruntime-1.14": Environment("3.7", ["onnxruntime==1.14.1", *TOOLS]),
    "onnxruntime": Environment("3.13", ["onnxruntime>=1.20", "ml-dtypes", *TOOLS]),
    "sklearn-0.23": Environment(
        "3.8",
        ["scikit-learn==0.23.2", "numpy<1.20", "xgboost==1.7.6", "lightgbm==3.3.5", "pandas<1.5", *TOOLS],
    ),
    # xgboost-cpu is xgboost without the 200 MB of CUDA libraries that xgboost itself asks for.
    "sklearn": Environment(
        "3.13", ["scikit-learn>=1.7", "xgboost-cpu>=3", "lightgbm>=4", "pandas>=3", *TOOLS]
    ),
}

# Builds for CUDA, of several GB each, which test_gpus.py asks for where there is a GPU. All that they need of CUDA but the driver comes with
# them. Not the newest torch: that one may lie as a build for the CPU in pip's find-links folder.
CUDA_TORCH = "torch==2.7.1"
CUDA_JAX = "jax[cuda12]>=0.12,<0.13"
ENVIRONMENTS.update(
    {
        "gpu-onnxruntime": Environment(
            "3.12", ["onnxruntime-gpu[cuda,cudnn]>=1.21,<1.24", "ml-dtypes", *TOOLS]
        ),
        "gpu-torch": Environment("3.12", [CUDA_TORCH, "ml-dtypes", "safetensors", *TOOLS]),
        "gpu-tensorflow": Environment("3.12", ["tensorflow[and-cuda]>=2.21,<2.22", *TOOLS]),
        "gpu-jax": Environment("3.12", [CUDA_JAX, "flatbuffers", "ml-dtypes", *TOOLS]),
        "gpu-keras-jax": Environment("3.12", ["keras>=3", CUDA_JAX, *TOOLS]),
        "gpu-keras-torch": Environment("3.12", ["keras>=3", CUDA_TORCH, *TOOLS]),
        "gpu-tensorrt": Environment("3.12", ["tensorrt-cu12>=10,<11", "cuda-python>=12.6,<13", *TOOLS]),
    }
)


def built(name: str) -> Path:
    """The interpreter of one of them."""
    return resolved(ENVIRONMENTS[name])


def resolved(environment: Environment) -> Path:
    """The interpreter of an environment; the test is skipped where there is none."""
    try:
        return environment.resolve()
    except BuildError as error:
        absent(f"{environment}, which cannot be built here: {error}")
