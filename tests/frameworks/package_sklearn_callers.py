"""Packagers that are given estimators and boosters. Run by test_package_callers.py, where scikit-learn, xgboost and lightgbm are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from opexec import packagers
from opexec.package import Package
from tests.frameworks.package_checks import check_packager, check_round_trip, check_wrong_answer

pytestmark = pytest.mark.timeout(300)  # each starts workers that import a framework
ROWS = np.repeat(np.arange(3, dtype=np.float64), 20)[:, None]
LABELS = np.repeat(np.array([7, 8, 9]), 20)


def given(model: Any, answer: np.ndarray[Any, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "model_name": "tree",
        "input_spec": [{"name": "rows", "dtype": "float64", "shape": ["n", 1]}],
        "output_spec": [{"name": "answer", "dtype": answer.dtype.name, "shape": ["n", *answer.shape[1:]]}],
        "test_input_data": {"rows": ROWS},
        "test_expected_out": {"answer": answer},
        **more,
    }


def packaged(folder: Path, model: Any, answer: np.ndarray[Any, Any], **more: Any) -> Package:
    return check_packager(packagers.create_sklearn_package, folder, **given(model, answer, **more))


def test_an_estimator(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier()).fit(ROWS, LABELS)
    package = packaged(tmp_path / "labels", model, LABELS)
    check_round_trip(package, tmp_path, "scikit-learn")
    check_wrong_answer(packagers.create_sklearn_package, tmp_path, **given(model, LABELS))
    packaged(tmp_path / "odds", model, model.predict_proba(ROWS), method="predict_proba")


def test_xgboost(tmp_path: Path) -> None:
    data = xgboost.DMatrix(ROWS, LABELS)
    booster = xgboost.train({"max_depth": 2}, data, 5)
    package = packaged(tmp_path / "booster", booster, booster.predict(data))
    assert package.platform_config["framework"] == "xgboost" and "0/data/model.ubj" in package.files
    estimator = xgboost.XGBRegressor(n_estimators=5).fit(ROWS, LABELS)
    packaged(tmp_path / "estimator", estimator, estimator.predict(ROWS))


def test_lightgbm(tmp_path: Path) -> None:
    booster = lightgbm.train(
        {"min_data_in_leaf": 5, "verbose": -1}, lightgbm.Dataset(ROWS, LABELS.astype(np.float64)), 5
    )
    package = packaged(tmp_path / "booster", booster, booster.predict(ROWS))
    assert package.platform_config["framework"] == "lightgbm" and "0/data/model.txt" in package.files
