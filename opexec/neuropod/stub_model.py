"""The model of a package that `stubs.randomify_neuropod` writes: a copy of this file, run by any Python from 3.7 on."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np


def make(data_path: str) -> Any:
    with open(os.path.join(data_path, "specs.json"), encoding="utf-8") as file:
        specs = json.load(file)
    generator = np.random.RandomState()

    def model(**given: Any) -> dict[str, Any]:
        sizes = dict(specs["sizes"])
        for spec in specs["inputs"]:
            if spec["name"] in given:
                named = zip(spec["shape"] or (), given[spec["name"]].shape)
                sizes.update({dim: size for dim, size in named if isinstance(dim, str)})
        return {
            spec["name"]: _values(generator, spec["dtype"], [sizes.get(dim, dim) for dim in spec["shape"]])
            for spec in specs["outputs"]
        }

    return model


def _values(generator: Any, dtype: str, shape: list[int]) -> Any:
    values = np.asarray(generator.random_sample(shape))
    if dtype == "string":
        return values.astype(str)
    if np.dtype(dtype).kind in "iu":
        values *= np.iinfo(dtype).max
    return np.asarray(values.round() if dtype == "bool" else values).astype(dtype)
