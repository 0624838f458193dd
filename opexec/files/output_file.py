"""Writing a model's outputs to an ``.npz`` file that holds no pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OpexecError
from ..ipc import wire
from . import caches


def write(path: Path, outputs: Mapping[str, Any]) -> None:
    """Write arrays under their names, whole or not at all; what is there is replaced.

    Texts are written as numpy's own, and what has no dtype in the npy format (bfloat16, float8) as its bits. Raises OpexecError.
    """
    arrays = {name: _writable(name, np.asarray(value)) for name, value in outputs.items()}
    temporary = caches.scratch_beside(path.absolute())
    try:
        with open(temporary, "xb") as file, zipfile.ZipFile(file, "w") as members:
            # numpy's own savez takes no array that is called "file".
            for name, array in arrays.items():
                info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
                with members.open(info, "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        os.replace(temporary, path)
    except OSError as error:
        raise OpexecError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _writable(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if wire.extension_name(array.dtype) is not None:
        return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)
    if array.dtype.kind != "O":
        return array
    kinds = {type(element) for element in array.flat}
    if kinds <= {str, np.str_}:
        fixed = array.astype(str)
    elif kinds <= {bytes, np.bytes_}:
        fixed = array.astype(bytes)
    else:
        raise OpexecError(
            f"output {name!r} holds {', '.join(sorted(kind.__name__ for kind in kinds))}, which an .npz file cannot hold"
        )
    if not np.array_equal(fixed.astype(object), array):
        raise OpexecError(
            f"output {name!r} has a text that ends in NUL, which an .npz file cannot hold; --json shows it"
        )
    return fixed
