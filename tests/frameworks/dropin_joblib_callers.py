"""joblib's face where pandas and scipy are installed: DataFrames and sparse matrices in. test_dropin.py runs this, with workers of other versions."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import opexec
from opexec.dropin import joblib
from opexec.dropin.tables import apart
from tests.frameworks.environments import built

#: Run both here and where the estimators are fitted: a table as programs have them.
TABLE = """
import numpy as np, pandas as pd
random = np.random.RandomState(0)
def table(rows):
    place = np.arange(rows)
    return pd.DataFrame({
        "age": random.randint(20, 60, rows).astype("int32"),
        "income": np.where(place % 7 == 3, np.nan, place * 100.5),
        "member": place % 3 == 0,
        "city": [["Bonn", "K\\u00f6ln", None][at % 3] for at in place],
        "size": pd.Categorical([["S", "M", "L"][at % 3] for at in place], ["S", "M", "L"], ordered=True),
        "since": pd.to_datetime("2020-01-01") + pd.to_timedelta(place, "D"),
    })
x, y = table(60), np.arange(60) % 2
"""

WRITTEN = (
    TABLE
    + """
import json, sys, joblib
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
columns = ColumnTransformer([
    ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income", "member"]),
    ("city", make_pipeline(SimpleImputer(missing_values=None, strategy="most_frequent"), OneHotEncoder()), ["city"]),
    ("size", OrdinalEncoder(), ["size"]),
])
x["city"] = x["city"].astype(object).where(x["city"].notna(), None)
texts = ["one two", "two", "three one", "gr\\u00fc\\u00dfe"]
counts = CountVectorizer().fit(texts)
made = {
    "table": (make_pipeline(columns, LogisticRegression()).fit(x, y), x),
    "texts": (make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, [0, 1, 0, 1]), texts),
    "sparse": (LogisticRegression().fit(counts.transform(texts), [0, 1, 0, 1]), counts.transform(texts)),
}
answers = {}
for name, (estimator, given) in made.items():
    joblib.dump(estimator, sys.argv[1] + name)
    answers[name] = estimator.predict_proba(given).tolist()
answers["dense"] = counts.transform(texts).toarray().tolist()
json.dump(answers, open(sys.argv[1] + "json", "w"))
"""
)


@pytest.fixture(scope="module", params=["sklearn-0.23", "sklearn"])
def written(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("estimators") / "a."
    command = [built(request.param), "-I", "-W", "ignore", "-c", WRITTEN, path]
    finished = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert finished.returncode == 0, finished.stdout
    return request.param, path, json.loads(Path(f"{path}json").read_text())


@pytest.fixture
def loaded(written: Any, request: pytest.FixtureRequest) -> Iterator[tuple[joblib.Estimator, Any]]:
    environment, path, answers = written
    with joblib.load(f"{path}{request.param}", env=built(environment)) as estimator:
        yield estimator, answers


@pytest.mark.parametrize("loaded", ["table"], indirect=True)
def test_a_pipeline_finds_its_columns_by_their_names(loaded: Any) -> None:
    estimator, answers = loaded
    names: dict[str, Any] = {}
    exec(TABLE, names)
    x = names["x"]
    x["city"] = x["city"].astype(object).where(x["city"].notna(), None)
    frames = [x, x.set_index("since", drop=False)]
    if not estimator.opexec_model.workers[0].framework_version.startswith("0.23"):  # it wants them in order
        frames.append(x[x.columns[::-1]])
    for frame in frames:
        probabilities = estimator.predict_proba(frame)
        assert type(probabilities) is np.ndarray
        np.testing.assert_allclose(probabilities, answers["table"], rtol=1e-9)
    np.testing.assert_allclose(estimator.predict_proba(x[5:9]), answers["table"][5:9], rtol=1e-9)
    with pytest.raises(opexec.ModelError, match="age"):
        estimator.predict(x.drop(columns="age"))


@pytest.mark.parametrize("loaded", ["texts"], indirect=True)
def test_texts_are_taken_in_any_form(loaded: Any) -> None:
    estimator, answers = loaded
    texts = ["one two", "two", "three one", "gr\u00fc\u00dfe"]
    for given in (texts, tuple(texts), np.array(texts), np.array(texts, object), pd.Series(texts)):
        np.testing.assert_allclose(estimator.predict_proba(given), answers["texts"], rtol=1e-9)


@pytest.mark.parametrize("loaded", ["sparse"], indirect=True)
def test_sparse_matrices_of_any_form(loaded: Any) -> None:
    estimator, answers = loaded
    dense = np.array(answers["dense"])
    for form in ("csr", "csc", "coo", "lil"):
        for kind in ("matrix", "array"):
            matrix = getattr(sparse, f"{form}_{kind}")(dense)
            np.testing.assert_allclose(estimator.predict_proba(matrix), answers["sparse"], rtol=1e-9)
    before = estimator.opexec_model.stats().bytes_copied_in
    large = sparse.csr_matrix((100_000, dense.shape[1]), dtype=float)
    estimator.predict(large)
    copied = estimator.opexec_model.stats().bytes_copied_in - before
    assert copied < large.shape[0] * 8, "as many as the row pointers have, not the dense array"


def test_what_arrays_cannot_hold_is_refused_by_its_column() -> None:
    for values, words in (
        ([1, "a"], "column 'b' has objects of type int"),
        (
            pd.to_datetime(["2026-01-01", "2026-01-02"]).tz_localize("UTC"),
            r"column 'b' is of datetime64\[.*UTC",
        ),
        (pd.array([1, None], "Int64"), "column 'b' is of Int64"),
        (pd.Categorical([(1, 2), (3, 4)]), "categories of column 'b' has objects of type tuple"),
    ):
        with pytest.raises(opexec.SpecError, match=words):
            apart(pd.DataFrame({"a": [1, 2], "b": values}))
    for columns in ([1, "a"], [(1, 2), (3, 4)], [True, False]):
        with pytest.raises(opexec.SpecError, match="texts alone or whole numbers alone"):
            apart(pd.DataFrame(np.ones((2, 2)), columns=pd.Index(columns, tupleize_cols=False)))
    with pytest.raises(opexec.SpecError, match="without columns"):
        apart(pd.DataFrame(index=[1, 2]))
