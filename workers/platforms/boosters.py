"""The files of xgboost and lightgbm, which hold trees and no Python objects."""

from __future__ import annotations

import json

from opexec.workers.platforms import endings
from opexec.workers.platforms.sklearn import OneInput
from opexec.workers.platforms.unreadable import first_line, unreadable


class XGBoost(OneInput):
    """A file that was saved from `XGBClassifier`, `XGBRegressor` and such is loaded as what it was, another as a `Booster`, which only predicts."""

    framework = "xgboost"

    def __init__(self, source, threads):
        import xgboost

        self.version = xgboost.__version__
        booster = xgboost.Booster()
        try:
            with endings.called(source, _ending(source)) as path:
                booster.load_model(path)
                kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type")
                # Only these two: other estimators predict as a booster does.
                wrapper = {"classifier": "XGBClassifier", "regressor": "XGBRegressor"}.get(kind)
                self._model = None
                if wrapper is not None:
                    self._model = getattr(xgboost, wrapper)()
                    self._model.load_model(path)
                    booster = self._model.get_booster()
        except Exception as error:
            raise _unreadable("xgboost", self.version, source, error) from error
        if threads:
            booster.set_param({"nthread": threads})
            if self._model is not None:
                self._model.n_jobs = threads
        self._booster = booster

    def call(self, method, x):
        return self._booster.inplace_predict(x) if self._model is None else getattr(self._model, method)(x)

    def methods(self):
        if self._model is None:
            return ["predict"]
        return [name for name in ("predict", "predict_proba") if hasattr(self._model, name)]


def _ending(source):
    """What xgboost wants such a file to be called: text and UBJSON both begin with a brace, UBJSON with its mark of a length behind it."""
    with open(source, "rb") as file:
        return ".ubj" if file.read(2)[1:] in b"LlIiUu$#" else ".json"


class LightGBM(OneInput):
    """`predict` gives what `lightgbm.Booster.predict` does: for a classifier, probabilities."""

    framework = "lightgbm"

    def __init__(self, source, threads):
        import lightgbm

        self.version = lightgbm.__version__
        try:
            self._booster = lightgbm.Booster(model_file=source)
        except Exception as error:
            raise _unreadable("lightgbm", self.version, source, error) from error
        self._options = {"num_threads": threads} if threads else {}

    def call(self, method, x):
        return self._booster.predict(x, **self._options)

    def methods(self):
        return ["predict"]


def _unreadable(framework, version, source, error):
    return unreadable("{} {}".format(framework, version), source, first_line(error), framework + "==...")
