"""Models that compute for as long as a processor's clock can see, each left to as many threads as it likes. Python >= 3.7.

Executed in the environment of a framework, it writes one of them: ``python computing_models.py forest FOLDER``.
"""

import os
import sys

import numpy as np

TREES = 100


def keras(folder):
    os.environ["KERAS_BACKEND"] = "jax"  # of those that write the file; any reads it
    import keras

    x = y = keras.Input((1000,), name="x")
    for _ in range(5):
        y = keras.layers.Dense(1000, use_bias=False)(y)
    keras.Model(x, y).save(os.path.join(folder, "dense.keras"))


def caffe2(folder):
    from caffe2.python import core
    from caffe2_models import write

    names = ["x", "y1", "y2", "y3", "y4", "y5"]
    products = [core.CreateOperator("MatMul", [one, "x"], [after]) for one, after in zip(names, names[1:])]
    os.makedirs(os.path.join(folder, "caffe2"))
    write(os.path.join(folder, "caffe2"), [], products, ["x"], ["y5"])


def _table():
    x = np.random.RandomState(7).rand(2000, 4).astype(np.float32)
    return x, x.sum(axis=1)


def forest(folder):
    import joblib
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), RandomForestRegressor(TREES, n_jobs=-1)).fit(*_table())
    joblib.dump(model, os.path.join(folder, "forest.joblib"))


def xgboost(folder):
    import joblib
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=TREES).fit(*_table())
    model.save_model(os.path.join(folder, "xgboost.ubj"))
    joblib.dump(model, os.path.join(folder, "xgboost.joblib"))


def lightgbm(folder):
    import joblib
    import lightgbm

    model = lightgbm.LGBMRegressor(n_estimators=TREES, verbosity=-1).fit(*_table())
    model.booster_.save_model(os.path.join(folder, "lightgbm.txt"))
    joblib.dump(model, os.path.join(folder, "lightgbm.joblib"))


if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    os.makedirs(sys.argv[-1], exist_ok=True)
    for kind in sys.argv[1:-1]:
        globals()[kind](sys.argv[-1])
