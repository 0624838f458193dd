"""The models of scikit-learn, xgboost and lightgbm for the conformance suite. Python >= 3.7; subject.py says what is in here."""

import os
import pickle

import joblib
import lightgbm
import numpy as np
import xgboost
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer
from subject import BIAS, WEIGHTS, Subject, rows


def _linear():
    """A regression whose numbers are given to it, not fitted, so that they are exact."""
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = WEIGHTS.T.copy(), BIAS.copy(), 4
    return model


def _classifier():
    x = rows(60)
    return LogisticRegression(max_iter=1000).fit(x, np.arange(60) % 3)


def written_by_joblib(folder):
    model, path = _linear(), os.path.join(folder, "model.joblib")
    joblib.dump(model, path)
    return Subject("sklearn", path, model.predict, input="X", empty=False)


def written_by_pickle(folder):
    model, path = _linear(), os.path.join(folder, "model.pkl")
    with open(path, "wb") as file:
        pickle.dump(model, file)
    return Subject("sklearn", path, model.predict, input="X", empty=False)


def probabilities(folder):
    model, path = _classifier(), os.path.join(folder, "model.joblib")
    joblib.dump(model, path, compress=3)
    options = {"method": "predict_proba"}
    return Subject("sklearn", path, model.predict_proba, options, input="X", exact=False, empty=False)


def _trees(module):
    return module(n_estimators=5, max_depth=2).fit(rows(60), np.arange(60) % 7)


def of_xgboost(folder):
    model, path = _trees(xgboost.XGBRegressor), os.path.join(folder, "model.ubj")
    model.save_model(path)
    return Subject("sklearn", path, model.predict, input="X", exact=False)


def booster(folder):
    path = os.path.join(folder, "model.json")
    booster = xgboost.train({"max_depth": 2}, xgboost.DMatrix(rows(60), np.arange(60) % 7), 5)
    booster.save_model(path)
    return Subject("sklearn", path, lambda x: booster.predict(xgboost.DMatrix(x)), input="X", exact=False)


def of_lightgbm(folder):
    path = os.path.join(folder, "model.txt")
    settings = {"objective": "regression", "min_data_in_leaf": 2, "verbosity": -1}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows(60), np.arange(60) % 7), 5)
    booster.save_model(path)
    return Subject("sklearn", path, booster.predict, input="X", exact=False)


def echo(folder, dtype):
    path = os.path.join(folder, "echo.joblib")
    joblib.dump(FunctionTransformer(), path)
    return Subject("sklearn", path, None, {"method": "transform"}, input="X")


TEXTS = "string"


def _junk(folder, name, data):
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


SUBJECTS = {
    "joblib": written_by_joblib,
    "pickle": written_by_pickle,
    "proba": probabilities,
    "xgboost": of_xgboost,
    "booster": booster,
    "lightgbm": of_lightgbm,
}
DTYPES = dict.fromkeys(
    (
        "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
    ).split(),
    True,
)
DTYPES.update(dict.fromkeys(["bfloat16", "float8_e5m2"], False))
BAD = {
    "pickle": lambda folder: ("scikit-learn", "sklearn", _junk(folder, "model.pkl", b"\x80\x04junk"), {}),
    "xgboost": lambda folder: ("xgboost", "sklearn", _junk(folder, "model.json", b'{"learner": 1}'), {}),
    "lightgbm": lambda folder: ("lightgbm", "sklearn", _junk(folder, "model.txt", b"tree\njunk\n"), {}),
}
