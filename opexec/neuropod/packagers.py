"""``create_*_neuropod``, as Neuropod has them: `opexec.packagers`, which says what each argument means, and `neuropod_load_args`.

Each raises ValueError for arguments that do not fit, for a wrong answer to the test data and for a SavedModel that has not the
tensors of the specs. What goes wrong beyond that is a ValueError too, as Neuropod's documentation has it, and a RuntimeError, as it is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from .. import packagers
from ..errors import OpexecError
from ..package import Package
from ..packagers.keras import input_specs, output_specs
from ..spec import parse_specs
from .errors import also
from .loader import decoded, load_arguments, text_names
from .saved_model import check_signature

__all__ = [
    "create_keras_neuropod",
    "create_python_neuropod",
    "create_pytorch_neuropod",
    "create_tensorflow_neuropod",
    "create_torchscript_neuropod",
    "infer_keras_input_spec",
    "infer_keras_output_spec",
]

_Path = str | os.PathLike[str]


def create_python_neuropod(**arguments: Any) -> Package:
    """`opexec.packagers.create_python_package`, with Neuropod's `neuropod_load_args`."""
    return _create(packagers.create_python_package, **arguments)


def create_pytorch_neuropod(**arguments: Any) -> Package:
    """`create_python_neuropod` by another name."""
    return _create(packagers.create_pytorch_package, **arguments)


def create_torchscript_neuropod(**arguments: Any) -> Package:
    """`opexec.packagers.create_torchscript_package`, with Neuropod's `neuropod_load_args`."""
    return _create(packagers.create_torchscript_package, **arguments)


def create_tensorflow_neuropod(
    *, saved_model_dir: _Path | None = None, trackable_obj: Any = None, **arguments: Any
) -> Package:
    """`opexec.packagers.create_tensorflow_package`, with Neuropod's `neuropod_load_args`.

    The signature of a SavedModel is held against the specs before anything is written.
    """
    with tempfile.TemporaryDirectory(prefix="opexec-neuropod-") as folder:
        if trackable_obj is not None and saved_model_dir is None:
            import tensorflow

            saved_model_dir, saved = os.path.join(folder, "savedmodel"), trackable_obj
            tensorflow.saved_model.save(saved, saved_model_dir)
            trackable_obj = None
        if saved_model_dir is not None and os.path.isfile(os.path.join(saved_model_dir, "saved_model.pb")):
            takes, gives = (
                [spec.name for spec in parse_specs(arguments.get(side), "tensor") or ()]
                for side in ("input_spec", "output_spec")
            )
            check_signature(saved_model_dir, takes, gives)
        return _create(
            packagers.create_tensorflow_package,
            saved_model_dir=saved_model_dir,
            trackable_obj=trackable_obj,
            **arguments,
        )


def create_keras_neuropod(
    sess: Any = None,
    model: Any = None,
    node_name_mapping: Mapping[str, str] | None = None,
    input_spec: Any = None,
    output_spec: Any = None,
    **arguments: Any,
) -> Package:
    """`opexec.packagers.create_keras_package`, with Neuropod's `neuropod_load_args`."""
    return _create(
        packagers.create_keras_package,
        sess=sess,
        model=model,
        node_name_mapping=node_name_mapping,
        input_spec=input_spec,
        output_spec=output_spec,
        **arguments,
    )


def infer_keras_input_spec(
    model: Any, node_name_mapping: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The `input_spec` that `create_keras_neuropod` has by default."""
    return input_specs(model, node_name_mapping)


def infer_keras_output_spec(
    model: Any, node_name_mapping: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The `output_spec` that `create_keras_neuropod` has by default."""
    return output_specs(model, node_name_mapping)


def _create(
    packager: Callable[..., Package],
    *,
    neuropod_load_args: Mapping[str, Any] | None = None,
    test_input_data: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Package:
    """`neuropod_load_args`: arguments of `load_neuropod`, with which the package is loaded to be tried on its test data."""
    load_args = load_arguments(**(neuropod_load_args or {}))
    try:
        if test_input_data is not None:
            texts = text_names(parse_specs(arguments.get("input_spec"), "input") or ())
            test_input_data = decoded(test_input_data, texts)
        return packager(test_input_data=test_input_data, load_args=load_args, **arguments)
    except OpexecError as error:
        raise also(error, ValueError, RuntimeError) from error.__cause__
