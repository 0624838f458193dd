"""The frameworks that are compared, each with the environment that it runs in."""

from __future__ import annotations

from dataclasses import dataclass, field

from opexec import Environment

_TORCH = "torch==2.13.0"  # a range could resolve to a build with CUDA, of several GB
_JAX = "jax>=0.12,<0.13"


@dataclass(frozen=True)
class Framework:
    """`writer` is the function of `writing` that makes the models; `env_vars` are set wherever they run."""

    title: str
    environment: Environment
    writer: str
    env_vars: dict[str, str] = field(default_factory=dict)


_TENSORFLOW_1 = Environment("3.7", ["tensorflow==1.15.5", "protobuf<3.21", "numpy<1.19", "h5py<3"])
_TENSORFLOW_24 = Environment("3.8", ["tensorflow-cpu==2.4.4", "protobuf<3.21"])
_TENSORFLOW = Environment("3.12", ["tensorflow-cpu>=2.21,<2.22"])
_OLD_TORCH = Environment("3.8", ["torch==1.4.0"])
_NEW_TORCH = Environment("3.11", [_TORCH])

FRAMEWORKS: dict[str, Framework] = {
    "python-3.7": Framework("Python function, numpy", Environment("3.7", ["numpy"]), "python"),
    "python-3.13": Framework("Python function, numpy", Environment("3.13", ["numpy"]), "python"),
    "onnxruntime-1.4": Framework("ONNX", Environment("3.7", ["onnxruntime==1.4.0"]), "onnx"),
    "onnxruntime": Framework("ONNX", Environment("3.13", ["onnxruntime>=1.20"]), "onnx"),
    "torchscript-1.4": Framework("TorchScript", _OLD_TORCH, "torchscript"),
    "torchscript-2.13": Framework("TorchScript", _NEW_TORCH, "torchscript"),
    "torch-1.4": Framework("torch module", _OLD_TORCH, "torch"),
    "torch-2.13": Framework("torch module", _NEW_TORCH, "torch"),
    "torch-export": Framework("torch.export, .pt2", _NEW_TORCH, "torch_export"),
    "caffe2": Framework(
        "Caffe2", Environment("3.8", ["torch==1.4.0", "protobuf<3.21", "future", "six"]), "caffe2"
    ),
    "tensorflow-1.15": Framework("TensorFlow, GraphDef", _TENSORFLOW_1, "tensorflow_graph"),
    "tensorflow-2.4": Framework("TensorFlow, SavedModel", _TENSORFLOW_24, "tensorflow_saved_model"),
    "tensorflow-2.21": Framework("TensorFlow, SavedModel", _TENSORFLOW, "tensorflow_saved_model"),
    "keras-2": Framework("Keras 2, .h5", _TENSORFLOW_24, "keras_2"),
    "keras-tensorflow": Framework(
        "Keras on TensorFlow", _TENSORFLOW, "keras", {"KERAS_BACKEND": "tensorflow"}
    ),
    "keras-jax": Framework(
        "Keras on jax", Environment("3.12", ["keras>=3", _JAX]), "keras", {"KERAS_BACKEND": "jax"}
    ),
    "keras-torch": Framework(
        "Keras on torch", Environment("3.11", ["keras>=3", _TORCH]), "keras", {"KERAS_BACKEND": "torch"}
    ),
    "jax": Framework("jax function", Environment("3.12", [_JAX, "ml-dtypes"]), "jax"),
    "jax-export": Framework(
        "jax.export", Environment("3.12", [_JAX, "ml-dtypes", "flatbuffers"]), "jax_export"
    ),
    "sklearn-0.23": Framework(
        "scikit-learn", Environment("3.8", ["scikit-learn==0.23.2", "numpy<1.20"]), "sklearn"
    ),
    "sklearn": Framework("scikit-learn", Environment("3.13", ["scikit-learn>=1.7"]), "sklearn"),
    # xgboost-cpu is xgboost without the 200 MB of CUDA libraries that xgboost itself asks for.
    "xgboost": Framework("xgboost", Environment("3.13", ["xgboost-cpu>=3"]), "xgboost"),
    "lightgbm": Framework("lightgbm", Environment("3.13", ["lightgbm>=4"]), "lightgbm"),
}

ONNX_WRITER = Environment(None, ["onnx>=1.16"])
"""What writes ONNX files, which onnxruntime does not."""
