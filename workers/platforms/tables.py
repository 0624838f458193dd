"""``X`` where it is no array: a pandas DataFrame or a sparse matrix of scipy's, which travels as the arrays that it is made of.

Arrays alone travel, and no pickle, so each part is an input of its own. A DataFrame is

    X.columns       its labels: texts, or int64
    X.kinds         texts, what each column is: "" (as the array says), "object" (of texts), "str" (pandas 3's), "string" (pandas' nullable one),
                    "category" or "ordered category"
    X.0, X.1, ...   the columns, of one axis; of a category, the codes
    X.0.categories  of a category, what the codes stand for
    X.0.missing     of texts, where some are missing: uint8, 1 where there is a NaN (or NA) in place of a text, 2 where there is None

and a sparse matrix

    X.format        a text, the name of the class: "csr_matrix", "csc_matrix", "csr_array" or "csc_array"
    X.data, X.indices, X.indptr, X.shape

`opexec.dropin.tables` takes them apart.
"""

from __future__ import annotations

import sys

import numpy as np

SPARSE = ("csr_matrix", "csc_matrix", "csr_array", "csc_array")
_TEXTS = ("object", "str", "string")
_CATEGORIES = ("category", "ordered category")


def is_taken_apart(named):
    """Whether a call's inputs are the parts of a table, by their names."""
    return "X.columns" in named or "X.format" in named


def together(parts):
    """A function that makes the table anew, from what lies in the arrays of `parts` then.

    Raises TypeError for parts that make no table, and ImportError, saying what to do, where there is no pandas.
    """
    make = _frame if "X.columns" in parts else _sparse
    try:
        return make(dict(parts))
    except KeyError as error:
        raise TypeError(
            "the input {!r} is missing; received {}".format(error.args[0], sorted(parts))
        ) from None


def _frame(parts):
    try:
        import pandas
    except ImportError:
        raise ImportError(
            "input 'X' is a DataFrame, and {} has no pandas: add it to the model's environment, as in "
            "Environment(requirements=['scikit-learn', 'pandas'])".format(sys.executable)
        ) from None
    labels, kinds = parts.pop("X.columns"), parts.pop("X.kinds")
    if labels.ndim != 1 or labels.shape != kinds.shape:
        raise TypeError("X.columns and X.kinds have the shapes {} and {}".format(labels.shape, kinds.shape))
    columns = [_Column(parts, place, str(kind)) for place, kind in enumerate(kinds)]
    _check_none_left(parts)

    def made():
        frame = pandas.DataFrame({place: column.series(pandas) for place, column in enumerate(columns)})
        frame.columns = pandas.Index(labels.tolist())
        return frame

    return made


class _Column:
    def __init__(self, parts, place, kind):
        name = "X.{}".format(place)
        self._values, self._kind = parts.pop(name), kind
        self._missing = parts.pop(name + ".missing", None) if kind in _TEXTS else None
        self._categories = parts.pop(name + ".categories") if kind in _CATEGORIES else None
        if kind and kind not in _TEXTS + _CATEGORIES:
            raise TypeError("{} is said to be {!r}, which is no kind of column".format(name, kind))
        if self._values.ndim != 1:
            raise TypeError(
                "{} has the shape {}; a column has one axis".format(name, list(self._values.shape))
            )

    def series(self, pandas):
        if self._categories is not None:
            made = pandas.Categorical.from_codes(
                self._values, pandas.Index(self._categories.tolist()), ordered=self._kind != "category"
            )
            return pandas.Series(made)
        if not self._kind:
            return pandas.Series(self._values)
        values = np.array(self._values, object)
        if self._missing is not None:
            values[self._missing == 1] = np.nan
            values[self._missing == 2] = None
        kind = self._kind
        if kind == "str" and int(pandas.__version__.split(".")[0]) < 3:
            kind = "object"  # what texts are in a DataFrame by themselves, before there was that kind
        return pandas.Series(values, dtype=kind)


def _sparse(parts):
    from scipy import sparse  # of scikit-learn's own needs

    kind = str(parts.pop("X.format")[()])
    if kind not in SPARSE:
        raise TypeError("X.format is {!r}; expected one of {}".format(kind, ", ".join(SPARSE)))
    data, indices, indptr = (parts.pop("X." + part) for part in ("data", "indices", "indptr"))
    shape = parts.pop("X.shape")
    _check_none_left(parts)
    # Before 1.8 scipy had no arrays, only matrices.
    form = getattr(sparse, kind, None) or getattr(sparse, kind.replace("array", "matrix"))
    return lambda: form((data, indices, indptr), shape=tuple(shape.tolist()))


def _check_none_left(parts):
    if parts:
        raise TypeError("{} is no part of the table".format(", ".join(map(repr, sorted(parts)))))
