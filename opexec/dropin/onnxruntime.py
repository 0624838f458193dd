"""onnxruntime's face: ``from opexec.dropin import onnxruntime as ort``, and `env=` where a session is made."""

from __future__ import annotations

import enum
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opexec import LoadError, Model, SpecError, TensorSpec

from . import onnx_file, onnx_providers
from .face import Face, load
from .onnx_file import ModelMetadata
from .original import forwarding

__all__ = [
    "ExecutionMode",
    "GraphOptimizationLevel",
    "InferenceSession",
    "ModelMetadata",
    "NodeArg",
    "SessionOptions",
    "get_available_providers",
    "preload_dlls",
]

__getattr__ = forwarding(__name__, "onnxruntime", ", ".join(__all__))


class GraphOptimizationLevel(enum.IntEnum):
    """onnxruntime's levels; sessions are made with all optimisations."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_ALL = 99


class ExecutionMode(enum.IntEnum):
    """onnxruntime's modes; sessions run one operator after the other."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class SessionOptions:
    """What of onnxruntime's options means something here.

    `intra_op_num_threads`: how many threads an operator may use; 0 leaves it to onnxruntime. Settings of logging are taken and have no
    effect: what a session logs goes to the logger ``opexec.worker``. All others can only be set to what sessions are made with anyway.
    """

    intra_op_num_threads: int
    inter_op_num_threads: int
    execution_mode: ExecutionMode
    graph_optimization_level: GraphOptimizationLevel
    enable_cpu_mem_arena: bool
    enable_mem_pattern: bool
    enable_mem_reuse: bool
    enable_profiling: bool
    log_severity_level: int
    log_verbosity_level: int
    logid: str

    def __init__(self) -> None:
        vars(self).update(_DEFAULTS)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _DEFAULTS:
            raise AttributeError(
                f"there is no session option {name!r} here; there are {', '.join(_DEFAULTS)}",
                name=name,
                obj=self,
            )
        if name == "intra_op_num_threads":
            if not isinstance(value, int) or value < 0:
                raise ValueError(
                    f"intra_op_num_threads is {value!r}; expected a number of threads, or 0 for onnxruntime's own choice"
                )
        elif name not in _FREE and value not in _ALLOWED.get(name, (_DEFAULTS[name],)):
            raise AttributeError(
                f"{name} cannot be {value!r} for a session in another process: sessions are made with {_DEFAULTS[name]!r}",
                name=name,
                obj=self,
            )
        vars(self)[name] = value


_DEFAULTS: dict[str, Any] = {
    "intra_op_num_threads": 0,
    "inter_op_num_threads": 0,
    "execution_mode": ExecutionMode.ORT_SEQUENTIAL,
    "graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_ALL,
    "enable_cpu_mem_arena": True,
    "enable_mem_pattern": True,
    "enable_mem_reuse": True,
    "enable_profiling": False,
    "log_severity_level": -1,
    "log_verbosity_level": 0,
    "logid": "",
}
_ALLOWED = {"inter_op_num_threads": (0, 1)}
_FREE = ("log_severity_level", "log_verbosity_level", "logid")


@dataclass(frozen=True)
class NodeArg:
    """An input or output: `type` as onnxruntime writes it, `shape` of numbers, symbols and None."""

    name: str
    type: str
    shape: list[int | str | None]


def get_available_providers() -> list[str]:
    """What sessions can be given on this machine. Whether a model's environment has an onnxruntime for it shows when a session is made."""
    return onnx_providers.available()


def preload_dlls(cuda: bool = True, cudnn: bool = True, msvc: bool = True, directory: None = None) -> None:
    """Nothing is left to do here: a worker loads CUDA's libraries from the packages of its environment by itself."""
    if directory is not None:
        raise ValueError(
            f"directory is {directory!r}; a worker takes CUDA's libraries from its environment or the system: name others by "
            "env_vars={'LD_LIBRARY_PATH': ...}"
        )


class InferenceSession(Face):
    """As onnxruntime's, of a model in a worker.

    `path_or_bytes`: an ONNX file, or its content. `providers`: None for the CPU, or a list. ``"CUDAExecutionProvider"`` before
    ``"CPUExecutionProvider"`` is the GPU that its setting `device_id` says, or the first; where that cannot be had the session runs on the CPU
    with a warning, and without ``"CPUExecutionProvider"`` in the list it is a LoadError. Other providers are passed over with a warning, as
    onnxruntime passes over those it lacks. `env` and further keywords: see `opexec.load`.

    Errors are opexec's (`SpecError`, which is a ValueError, for wrong inputs; `ModelError` for what onnxruntime raises).
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, Mapping[str, Any]]] | None = None,
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        *,
        env: Any = None,
        **options: Any,
    ) -> None:
        if sess_options is not None and not isinstance(sess_options, SessionOptions):
            raise TypeError(
                f"sess_options is of type {type(sess_options).__module__}.{type(sess_options).__qualname__}; expected a SessionOptions of "
                f"{__name__}, which can be given to a session in another process"
            )
        choice = onnx_providers.choose(providers, provider_options, options.pop("device", None))
        if choice.passed_over:
            warnings.warn(
                f"the session runs on {choice.providers}; passed over: {', '.join(choice.passed_over)}",
                stacklevel=2,
            )
        self._options = sess_options or SessionOptions()
        if self._options.intra_op_num_threads:
            options.setdefault("threads", self._options.intra_op_num_threads)
        try:
            model, self._file = _loaded(path_or_bytes, choice, env, options)
        except LoadError as error:
            if not choice.or_cpu or error.stage not in ("device", "load"):
                raise
            choice = onnx_providers.Choice("cpu")
            model, self._file = _loaded(path_or_bytes, choice, env, options)
            warnings.warn(f"the session runs on {choice.providers}: {error}", stacklevel=2)
        self._providers = choice.providers
        super().__init__(model)

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: None = None
    ) -> list[Any]:
        """The outputs named, or all, in order; arrays are views of shared memory, good as long as they are held."""
        if run_options is not None:
            raise ValueError(
                "run_options is not None; a call into another process takes none. For a deadline load with timeout="
            )
        if self.opexec_model.outputs is not None:
            results: Mapping[str, Any] = self.opexec_model.infer(input_feed)
        else:
            results = self.opexec_model(**input_feed)  # some output is no tensor, and comes as it is nested
        if not output_names:
            return [*results.values()]
        try:
            return [results[name] for name in output_names]
        except KeyError as error:
            raise SpecError(
                f"output {error.args[0]!r} was asked for; the model's outputs are {', '.join(map(repr, results))}"
            ) from None

    def get_inputs(self) -> list[NodeArg]:
        return [_node(spec) for spec in self.opexec_model.inputs or ()]

    def get_outputs(self) -> list[NodeArg]:
        if self.opexec_model.outputs is not None:
            return [_node(spec) for spec in self.opexec_model.outputs]
        types = onnx_file.output_types(self._file)
        return [NodeArg(name, type_, []) for name, type_ in types.items()]

    def get_modelmeta(self) -> ModelMetadata:
        return onnx_file.metadata(self._file)

    def get_providers(self) -> list[str]:
        """Where the session runs. What CUDA's provider lacks the CPU computes."""
        return list(self._providers)

    def get_session_options(self) -> SessionOptions:
        return self._options


def _loaded(
    source: str | os.PathLike[str] | bytes,
    choice: onnx_providers.Choice,
    env: Any,
    options: Mapping[str, Any],
) -> tuple[Model, Path]:
    told = dict(options)
    if choice.settings:
        told["options"] = {**(options.get("options") or {}), "cuda": dict(choice.settings)}
    return load(source, ".onnx", platform="onnx", env=env, device=choice.device, **told)


def _node(spec: TensorSpec) -> NodeArg:
    element = {"float32": "float", "float64": "double"}.get(
        spec.dtype, spec.dtype.replace("float8_", "float8")
    )
    return NodeArg(spec.name, f"tensor({element})", [] if spec.shape is None else list(spec.shape))
