"""Packages that stand in for a model that is not there yet, as ``neuropod.utils.randomify`` makes them."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..spec import TensorSpec, parse_specs
from . import stub_model
from .packagers import create_python_neuropod

_LARGEST = 99


def randomify_neuropod(output_path: str | os.PathLike[str], input_spec: Any, output_spec: Any) -> str:
    """Write a package that takes any of these inputs and gives random values for these outputs; returns its path.

    Numbers are from 0 to 1, whole ones up to the largest of their dtype, texts are digits. A symbol of the inputs has in the outputs the size
    that it has in the call; other symbols, and sizes that are None, are drawn once, here, from 1 to 99. The platform is python: nothing
    but numpy is needed to run it. Raises what `create_python_neuropod` raises.
    """
    inputs, outputs = parse_specs(input_spec, "input") or (), parse_specs(output_spec, "output") or ()
    symbols = {dim for one in outputs for dim in one.shape or () if isinstance(dim, str)}
    specs = {
        "inputs": [one.to_dict() for one in inputs],
        "outputs": [_drawn(one) for one in outputs],
        "sizes": {symbol: random.randint(1, _LARGEST) for symbol in sorted(symbols)},
    }
    with tempfile.TemporaryDirectory(prefix="opexec-stub-") as folder:
        code, data = Path(folder, "code"), Path(folder, "specs.json")
        (code / "stub").mkdir(parents=True)
        shutil.copyfile(stub_model.__file__, code / "stub/model.py")
        data.write_text(json.dumps(specs), encoding="utf-8")
        create_python_neuropod(
            neuropod_path=output_path,
            model_name="random_model",
            data_paths=[{"path": data, "packaged_name": "specs.json"}],
            code_path_spec=[{"python_root": code, "dirs_to_package": ["stub"]}],
            entrypoint_package="stub.model",
            entrypoint="make",
            input_spec=inputs,
            output_spec=outputs,
            test_input_data={},
            persist_test_data=False,
        )
    return os.fspath(output_path)


def _drawn(spec: TensorSpec) -> dict[str, Any]:
    """With a size where the spec has None; a scalar where nothing is said of the shape."""
    shape = [random.randint(1, _LARGEST) if dim is None else dim for dim in spec.shape or ()]
    return {"name": spec.name, "dtype": spec.dtype, "shape": shape}
