"""pandas DataFrames and scipy's sparse matrices as the arrays that they are made of: workers/platforms/tables.py says which, and has the other half."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from opexec import SpecError

from ..workers.platforms.tables import SPARSE

Array = np.ndarray[Any, Any]


def apart(X: Any) -> dict[str, Array] | None:
    """The inputs by which `X` travels if it is a DataFrame or sparse, else None. Raises SpecError for a column that arrays cannot hold."""
    pandas, sparse = sys.modules.get("pandas"), sys.modules.get("scipy.sparse")
    if pandas is not None and isinstance(X, pandas.DataFrame):
        return _frame(pandas, X)
    if sparse is not None and sparse.issparse(X):
        return _sparse(X)
    return None


def _frame(pandas: Any, frame: Any) -> dict[str, Array]:
    labels = list(frame.columns)
    if not labels:
        raise SpecError("input 'X' is a DataFrame without columns")
    parts: dict[str, Array] = {}
    if all(isinstance(label, str) for label in labels):
        parts["X.columns"] = _objects(labels)
    elif all(isinstance(label, int | np.integer) and not isinstance(label, bool) for label in labels):
        parts["X.columns"] = np.array(labels, np.int64)
    else:
        raise SpecError(
            f"input 'X' is a DataFrame with the columns {labels}; expected texts alone or whole numbers alone"
        )
    kinds = []
    for place, label in enumerate(labels):
        kind, more = _column(pandas, frame.iloc[:, place], label)
        kinds.append(kind)
        parts.update({f"X.{place}{part}": array for part, array in more.items()})
    return {**parts, "X.kinds": _objects(kinds)}


def _column(pandas: Any, series: Any, label: object) -> tuple[str, dict[str, Array]]:
    """The kind of a column, and its arrays."""
    dtype = series.dtype
    if isinstance(dtype, pandas.CategoricalDtype):
        values = np.asarray(dtype.categories)
        if values.dtype.kind == "O":
            values, missing = _texts(pandas, values, f"the categories of column {label!r}")
            assert missing is None  # there are no such categories
        elif values.dtype.kind not in "biufmM":
            raise _refused(label, f"of categories of {values.dtype}")
        kind = "ordered category" if dtype.ordered else "category"
        return kind, {"": series.cat.codes.to_numpy(), ".categories": values}
    if isinstance(dtype, np.dtype) and dtype.kind in "biufcmM":
        return "", {"": series.to_numpy()}
    if isinstance(dtype, pandas.StringDtype):
        kind = "str" if str(dtype) == "str" else "string"
    elif dtype == np.dtype(object):
        kind = "object"
    else:
        raise _refused(label, f"of {dtype}")
    texts, missing = _texts(pandas, series.to_numpy(object), f"column {label!r}")
    return kind, {"": texts} if missing is None else {"": texts, ".missing": missing}


def _texts(pandas: Any, values: Array, where: str) -> tuple[Array, Array | None]:
    """Texts, and where some are missing."""
    others = [place for place, value in enumerate(values) if not isinstance(value, str)]
    if not others:
        return values, None
    texts, missing = values.copy(), np.zeros(len(values), np.uint8)
    for place in others:
        value = values[place]
        if value is not None and value is not pandas.NA and not (isinstance(value, float) and value != value):
            raise SpecError(
                f"input 'X': {where} has objects of type {type(value).__qualname__}; in one of objects there can be texts, None and "
                "NaN: convert it first, as in df.astype({'name': 'float64'})"
            )
        texts[place], missing[place] = "", 2 if value is None else 1
    return texts, missing


def _refused(label: object, what: str) -> SpecError:
    return SpecError(
        f"input 'X': column {label!r} is {what}, which does not travel; there can be numbers, bools, texts, datetime64 and "
        "timedelta64 without a time zone, and categories of these: convert it first, as in df.astype({'name': 'float64'})"
    )


def _sparse(matrix: Any) -> dict[str, Array]:
    if type(matrix).__name__ not in SPARSE:
        matrix = matrix.tocsr()  # as scikit-learn does
    return {
        "X.format": np.array(type(matrix).__name__, object),
        "X.data": matrix.data,
        "X.indices": matrix.indices,
        "X.indptr": matrix.indptr,
        "X.shape": np.array(matrix.shape, np.int64),
    }


def _objects(values: list[str]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array
