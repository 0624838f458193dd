"""Arrays as bytes, as ``neuropod.neuropod_native`` has it: the bytes of an ``.npz`` file, which are not those of Neuropod."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_ALONE = "array"


def serialize(tensors: Array | Mapping[str, Array]) -> bytes:
    """One array, for `deserialize`, or a dict of them, for `deserialize_dict`. Raises ValueError for an array of objects."""
    named = tensors if isinstance(tensors, Mapping) else {_ALONE: tensors}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in named.items():
            # numpy's own savez takes no array called "file".
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def deserialize(content: bytes) -> Array:
    """The array that `serialize` was given. Raises RuntimeError for bytes that are not its."""
    tensors = deserialize_dict(content)
    if tensors.keys() != {_ALONE}:
        raise RuntimeError(f"expected the bytes of one array; these are of a dict of {sorted(tensors)}")
    return tensors[_ALONE]


def deserialize_dict(content: bytes) -> dict[str, Array]:
    """The dict of arrays that `serialize` was given. Raises RuntimeError for bytes that are not its."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = {}
            for name in archive.namelist():
                with archive.open(name) as member:
                    found[name.removesuffix(".npy")] = np.lib.format.read_array(member, allow_pickle=False)
            return found
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise RuntimeError(f"expected what serialize() returned: {error}") from error
