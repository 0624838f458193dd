"""Which models of which framework the conformance suite runs, and in which environments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Group:
    """The models of one file in one environment."""

    environment: str
    """Its name in environments.py."""
    models: str
    """A file of this folder; subject.py tells what it has."""
    subjects: tuple[str, ...]
    """The names in its SUBJECTS, all of them."""
    called: tuple[str, ...]
    """Those that are also called from another process: each platform and kind of file, not each way to write one."""
    env_vars: dict[str, str] = field(default_factory=dict)
    """What is set in the processes that run there, workers too."""
    aligned: bool = False
    """The framework takes an input where it lies only if that begins on 64 bytes."""


_ESTIMATORS = ("joblib", "pickle", "proba", "xgboost", "booster", "lightgbm")
_TENSORFLOW = ("graph", "saved_model", "old_saved_model")


def _keras(environment: str, backend: str) -> Group:
    subjects = ("h5", "sequential", "keras")
    return Group(
        environment, "keras_models.py", subjects, ("keras",), {"KERAS_BACKEND": backend}, backend != "torch"
    )


GROUPS = {
    "onnxruntime-1.4": Group("onnxruntime-1.4", "onnx_subjects.py", ("onnx",), ("onnx",)),
    "onnxruntime": Group("onnxruntime", "onnx_subjects.py", ("onnx",), ("onnx",)),
    "torch-1.4": Group(
        "torch-1.4",
        "torch_models.py",
        ("factory", "state_dict", "torchscript"),
        ("state_dict", "torchscript"),
    ),
    "torch-2.13": Group(
        "torch-2.13",
        "torch_models.py",
        ("factory", "state_dict", "torchscript", "safetensors", "export"),
        ("state_dict", "torchscript", "export"),
    ),
    "jax": Group(
        "jax", "jax_models.py", ("factory", "jitted", "eager", "export"), ("factory", "export"), aligned=True
    ),
    "sklearn-0.23": Group(
        "sklearn-0.23", "sklearn_models.py", _ESTIMATORS, ("joblib", "xgboost", "lightgbm")
    ),
    "sklearn": Group("sklearn", "sklearn_models.py", _ESTIMATORS, ("joblib", "xgboost", "lightgbm")),
    "tensorflow-1.15": Group(
        "tensorflow-1.15", "tensorflow_models.py", _TENSORFLOW, ("graph", "saved_model"), aligned=True
    ),
    "tensorflow-2.4": Group(
        "tensorflow-2.4", "tensorflow_models.py", _TENSORFLOW, ("graph", "saved_model"), aligned=True
    ),
    "tensorflow-2.21": Group(
        "tensorflow-2.21", "tensorflow_models.py", _TENSORFLOW, ("graph", "saved_model"), aligned=True
    ),
    "keras-2-tensorflow-1.15": Group(
        "tensorflow-1.15", "keras_models.py", ("h5", "sequential"), ("h5",), aligned=True
    ),
    "keras-2-tensorflow-2.4": Group(
        "tensorflow-2.4", "keras_models.py", ("h5", "sequential"), ("h5",), aligned=True
    ),
    "keras-3-tensorflow": _keras("tensorflow-2.21", "tensorflow"),
    "keras-3-jax": _keras("keras-jax", "jax"),
    "keras-3-torch": _keras("keras-torch", "torch"),
    "caffe2": Group("caffe2", "caffe2_models.py", ("nets",), ("nets",)),
    # Whichever environments have the oldest and the newest Python.
    "python-3.7": Group("onnxruntime-1.4", "python_models.py", ("factory",), ("factory",)),
    "python-3.13": Group("onnxruntime", "python_models.py", ("factory",), ("factory",)),
    # In a worker a platform is registered by a package that is installed: test_frameworks.py does that.
    "registered": Group("onnxruntime-1.4", "registered_models.py", ("matrix",), ()),
}

#: What test_gpus.py runs, with builds for CUDA. Each platform that takes a `device` is among them.
ON_GPUS = {
    "gpu-onnxruntime": Group("gpu-onnxruntime", "onnx_subjects.py", ("onnx",), ("onnx",)),
    "gpu-torch": replace(GROUPS["torch-2.13"], environment="gpu-torch"),
    "gpu-tensorflow": replace(GROUPS["tensorflow-2.21"], environment="gpu-tensorflow"),
    "gpu-jax": replace(GROUPS["jax"], environment="gpu-jax"),
    "gpu-keras-tensorflow": _keras("gpu-tensorflow", "tensorflow"),
    "gpu-keras-jax": _keras("gpu-keras-jax", "jax"),
    "gpu-keras-torch": _keras("gpu-keras-torch", "torch"),
    "gpu-tensorrt": Group("gpu-tensorrt", "tensorrt_models.py", ("engine",), ("engine",)),
}
