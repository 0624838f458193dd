"""scikit-learn estimators from joblib files and pickles, and the files of xgboost and lightgbm.

The one input is called ``X``, as in scikit-learn's own methods, and is handed over where it lies; whether the framework then converts it to
a dtype of its own is the framework's affair. A DataFrame or a sparse matrix comes in parts (tables.py). A text input ``method`` beside it names another method for that call;
``"methods"`` gives the names of all that the model has.
No spec is read from a file: an estimator knows how many columns it takes, but it takes any numeric dtype.
"""

from __future__ import annotations

import os

import numpy as np

from opexec.ipc import wire
from opexec.workers.arrays import native
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_options
from opexec.workers.platforms.tables import is_taken_apart, together

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform", "score_samples")


def load(source, options):
    """Load a file that joblib or pickle wrote, or one that xgboost (``.json``, ``.ubj``) or lightgbm (``.txt``) wrote; its content tells which.

    A pickle runs code of whoever wrote it: load none that you do not trust. Options: `method`, what a call does, the first of
    `METHODS` that the model has if left out; `threads`, how many BLAS, OpenMP, joblib, xgboost and lightgbm compute with.

    Raises RuntimeError for a file that cannot be read here, naming the version that wrote it where the file tells, TypeError for an object that
    is no estimator, ValueError for options that do not fit.
    """
    check_options("sklearn", options, ("method", "threads"))
    method = options.get("method")
    threads = options.get("threads")
    if not os.path.isfile(source):
        raise FileNotFoundError("no such file: {}".format(source))
    with open(source, "rb") as file:
        kind = kind_of(file.read(64))
    model: OneInput
    if kind == "xgboost":
        from opexec.workers.platforms import boosters

        model = boosters.XGBoost(source, threads)
    elif kind == "lightgbm":
        from opexec.workers.platforms import boosters

        model = boosters.LightGBM(source, threads)
    else:
        from opexec.workers.platforms import estimators

        model = estimators.Estimator(source, threads)
    model.method = model.methods()[0] if method is None else method
    model.check_method(model.method)
    return model


def kind_of(head):
    """``"xgboost"``, ``"lightgbm"`` or ``"pickle"``, by the first bytes of a file. Pickles begin in several ways, compressed ones in more."""
    stripped = head.lstrip()
    # JSON, or UBJSON: an object whose first key is preceded by its length, or that is marked as optimised.
    if stripped[:1] == b"{" and (stripped[1:].lstrip()[:1] in (b'"', b"}") or head[1:2] in b"LlIiUu$#"):
        return "xgboost"
    if stripped[:5] == b"tree\n" or stripped[:6] == b"tree\r\n":
        return "lightgbm"
    return "pickle"


class OneInput(Platform):
    """A model of one input ``X``; `method` is what a call does that names none."""

    method = ""

    def bind(self, args, kwargs):
        named = dict(kwargs)
        method = named.pop("method", None)
        if method is not None:
            method = str(method[()])
        if not args and is_taken_apart(named):
            return together(named), method
        if len(args) + len(named) != 1 or (named and "X" not in named):
            raise TypeError(
                "{} inputs by position and {} by name; the model takes one, 'X' (and the text 'method', which names one of "
                "{})".format(len(args), sorted(kwargs), ", ".join(METHODS))
            )
        array = args[0] if args else named["X"]
        extension = wire.extension_name(array.dtype)
        if extension is not None or array.dtype.kind == "V":
            raise TypeError(
                "input 'X' is {}, which {} cannot compute with: convert it to float32".format(
                    extension or array.dtype, self.framework
                )
            )
        array = native(array)
        return (lambda: array), method

    def run(self, bound, reserve):
        x, method = bound
        if method is None:
            return self.call(self.method, x())
        if method == "methods":
            return np.array(self.methods(), object)
        self.check_method(method)
        return self.call(method, x())

    def call(self, method, x):
        """What the model's method gives for `x`."""
        raise TypeError("a model must define call()")

    def check_method(self, method):
        """Raise ValueError if the model has no such method."""
        if method not in METHODS:
            raise ValueError("the method is {!r}; expected one of {}".format(method, ", ".join(METHODS)))
        has = self.methods()
        if method not in has:
            raise ValueError(
                "the model has no {}; it has {}".format(
                    method, ", ".join(has) or "none of " + ", ".join(METHODS)
                )
            )

    def methods(self):
        """Those of METHODS that the model has."""
        raise TypeError("a model must define methods()")
