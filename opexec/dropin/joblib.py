"""joblib's face: ``from opexec.dropin import joblib``, and `env=` where an estimator is loaded: ``joblib.load(path, env=...)``."""

from __future__ import annotations

import functools
import os
from typing import IO, Any

import numpy as np

from opexec import Model

from .face import Face
from .face import load as load_model
from .original import forwarding
from .tables import apart

__all__ = ["Estimator", "load"]

__getattr__ = forwarding(__name__, "joblib", ", ".join(__all__))

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")
_NOTHING = np.zeros((0, 0))


def load(
    filename: str | os.PathLike[str] | IO[bytes], mmap_mode: None = None, *, env: Any = None, **options: Any
) -> Estimator:
    """Load an estimator from a file of joblib's or pickle's, or an open one. `env` and further keywords: see `opexec.load`.

    A pickle runs code of whoever wrote it, in the worker: load none that you do not trust.
    """
    if mmap_mode is not None:
        raise ValueError(
            "mmap_mode is about arrays in this process; leave it out for an estimator in another one"
        )
    model, _ = load_model(filename, ".joblib", platform="sklearn", env=env, **options)
    try:
        return Estimator(model)
    except BaseException:
        model.close()
        raise


class Estimator(Face):
    """As a fitted scikit-learn estimator: the methods of METHODS that it has, all in one worker.

    `X` may be an array, a list of rows or of texts, a pandas DataFrame, whose columns keep their names and dtypes, or a sparse matrix. Answers
    are numpy arrays; sparse ones come dense.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._methods = frozenset(model(X=_NOTHING, method=_text("methods")).tolist())

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__dict__.get("_methods", ())})

    def __getattr__(self, name: str) -> Any:
        if name in METHODS and name in self.__dict__.get("_methods", ()):
            return functools.partial(self._call, name)
        return super().__getattr__(name)

    def _call(self, method: str, X: Any) -> np.ndarray[Any, Any]:
        parts = apart(X)
        if parts is None:
            parts = {"X": _rows(X)}
        result: np.ndarray[Any, Any] = self.opexec_model(**parts, method=_text(method))
        return result


def _text(value: str) -> np.ndarray[Any, Any]:
    return np.array(value, object)


def _rows(X: Any) -> Any:
    """A list as the array that scikit-learn would make of it: texts as objects, as they are where an estimator learns them."""
    if not isinstance(X, list | tuple):
        return X
    array = np.asarray(X)
    return np.asarray(X, object) if array.dtype.kind == "U" else array
