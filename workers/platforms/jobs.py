"""How many threads estimators compute with that are told so by themselves: the parts of a fitted estimator, by joblib, xgboost or lightgbm.

`n_jobs` is a setting of each estimator, which goes before what joblib is told from outside (`joblib.parallel_config`), and what a
pipeline or an ensemble computes with are the fitted parts that it keeps, not those in its own settings.
"""

from __future__ import annotations

import os
import types
from collections.abc import Iterable

import numpy as np

#: What xgboost and lightgbm call it too.
_NAMES = ("n_jobs", "nthread", "nthreads", "num_thread", "num_threads")
#: Where their estimators keep settings that have no attribute of their own.
_SETTINGS = {"xgboost": "kwargs", "lightgbm": "_other_params"}
_CODE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def limit(estimator, threads):
    """Let no part of an estimator compute with more than `threads` threads or processes; what was set to fewer stays."""
    for part in _parts(estimator):
        package = type(part).__module__.partition(".")[0]
        if package == "xgboost" and hasattr(part, "set_param"):  # a Booster
            part.set_param({"nthread": threads})
            continue
        settings = [vars(part)]
        if package in _SETTINGS:
            settings.append(vars(part).get(_SETTINGS[package]) or {})
        for each in settings:
            for name in _NAMES:
                if name in each:
                    each[name] = _limited(each[name], threads, package)


def _limited(given, threads, package):
    if given is None or given == 0:  # one to joblib and scikit-learn, all cores to the others
        return threads if package in _SETTINGS else given
    if isinstance(given, bool) or not isinstance(given, (int, np.integer)):
        return given
    if given < 0:  # all cores, all but one, ...
        given = max((os.cpu_count() or 1) + 1 + int(given), 1)
    return min(int(given), threads)


def _parts(whole):
    """All objects with attributes that an object holds, itself among them, each once."""
    seen, left = set(), [whole]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, _CODE):
            continue
        held: Iterable
        if isinstance(one, dict):
            held = one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            held = one
        elif isinstance(one, np.ndarray):
            held = one.ravel().tolist() if one.dtype == object else ()
        elif hasattr(one, "__dict__"):
            yield one
            held = vars(one).values()
        else:
            continue
        seen.add(id(one))
        left.extend(held)
