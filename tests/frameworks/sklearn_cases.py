"""The sklearn platform beyond what all platforms promise, with real frameworks. Run by test_frameworks.py; Python >= 3.7."""

import bz2
import gzip
import json
import lzma
import os
import pickle
import sys
import zlib

import joblib
import lightgbm
import numpy as np
import pandas
import pytest
import sklearn
import xgboost
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from opexec.workers import platforms
from opexec.workers.platforms import estimators
from opexec.workers.platforms.sklearn import METHODS, kind_of


def table(rows=60, columns=4):
    return np.random.RandomState(7).randn(rows, columns)


LABELS = np.arange(60) % 3
ESTIMATORS = {
    "classifier": lambda: LogisticRegression(max_iter=1000).fit(table(), LABELS),
    "texts": lambda: LogisticRegression(max_iter=1000).fit(table(), np.array(["a", "bc", "d\u00fc"])[LABELS]),
    "margin": lambda: SVC().fit(table(), LABELS),
    "components": lambda: PCA(2).fit(table()),
    "pipeline": lambda: make_pipeline(StandardScaler(), LinearRegression()).fit(table(), LABELS),
    "density": lambda: KernelDensity().fit(table()),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=3).fit(table(), LABELS),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=3, verbosity=-1).fit(table(), LABELS),
}


def dumped(estimator, folder):
    path = str(folder / "model.joblib")
    joblib.dump(estimator, path)
    return path


def load(path, **options):
    return platforms.load("sklearn", str(path), options)


def call(model, *args, **kwargs):
    return model.run(model.bind(list(args), kwargs), None)


@pytest.mark.parametrize("kind", list(ESTIMATORS))
def test_every_method_that_an_estimator_has_answers_as_it_does(kind, tmp_path):
    estimator = ESTIMATORS[kind]()
    path, x = dumped(estimator, tmp_path), table(5)
    has = [name for name in METHODS if hasattr(estimator, name)]
    asked = load(path)
    assert asked.method == has[0]
    assert call(asked, X=x, method=np.array("methods", object)).tolist() == has
    for name in has:
        expected = np.asarray(getattr(estimator, name)(x))
        for result in (call(load(path, method=name), x), call(asked, X=x, method=np.array(name, object))):
            np.testing.assert_array_equal(np.asarray(result), expected)
            assert np.asarray(result).dtype == expected.dtype
    for name in set(METHODS) - set(has):
        with pytest.raises(ValueError, match="has no {}; it has {}".format(name, has[0])):
            load(path, method=name)
        with pytest.raises(ValueError, match="has no {}; it has {}".format(name, has[0])):
            call(asked, X=x, method=np.array(name, object))


def texts(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def parts():
    """A DataFrame as it travels, and what it is."""
    old = int(pandas.__version__.split(".")[0]) < 3
    missing = np.array([0, 1, 2], np.uint8)
    made = {
        "X.columns": texts("a", "b", "c", "d", "e", "f", "a"),
        "X.kinds": texts("", "object", "category", "ordered category", "string", "str", ""),
        "X.0": np.array([1.5, np.nan, 3], np.float32),
        "X.1": texts("one", "", ""),
        "X.1.missing": missing,
        "X.2": np.array([1, -1, 0], np.int8),
        "X.2.categories": texts("low", "high"),
        "X.3": np.array([0, 0, 1], np.int8),
        "X.3.categories": np.array([10, 20]),
        "X.4": texts("x", "", "z"),
        "X.4.missing": np.array([0, 1, 0], np.uint8),
        "X.5": texts("u", "v", "w"),
        "X.6": np.array(["2026-01-01", "2026-01-02", "NaT"], "M8[ns]"),
    }
    columns = [
        pandas.Series(np.array([1.5, np.nan, 3], np.float32)),
        pandas.Series(["one", np.nan, None], dtype=object),
        pandas.Series(pandas.Categorical(["high", None, "low"], ["low", "high"])),
        pandas.Series(pandas.Categorical([10, 10, 20], [10, 20], ordered=True)),
        pandas.Series(["x", None, "z"], dtype="string"),
        pandas.Series(["u", "v", "w"], dtype=object if old else "str"),
        pandas.Series(pandas.to_datetime(["2026-01-01", "2026-01-02", None])).astype("M8[ns]"),
    ]
    frame = pandas.concat(columns, axis=1)
    frame.columns = list("abcdefa")
    return made, frame


def unchanged(folder):
    return load(dumped(FunctionTransformer(validate=False, accept_sparse=True), folder))


def test_a_frame_is_put_together_from_its_columns(tmp_path):
    given, expected = parts()
    model = unchanged(tmp_path)
    bound = model.bind([], given)
    for _ in range(2):
        pandas.testing.assert_frame_equal(model.run(bound, None), expected)
        given["X.0"][0] = expected.iloc[0, 0] = 7  # bound inputs are looked at anew
    numbered = {"X.columns": np.array([3, 1]), "X.kinds": texts("", ""), "X.0": np.ones(2), "X.1": np.ones(2)}
    assert call(model, **numbered).columns.tolist() == [3, 1]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"X.7": np.ones(3)}, "'X.7' is no part"),
        ({"X.2": None}, "'X.2' is missing"),
        ({"X.2.categories": None}, "'X.2.categories' is missing"),
        ({"X.kinds": texts("")}, "the shapes"),
        ({"X.kinds": texts(*[""] * 6, "object of art")}, "'object of art', which is no kind"),
        ({"X.0": np.ones((3, 1))}, "one axis"),
    ],
)
def test_parts_that_make_no_frame_are_refused(change, words, tmp_path):
    given = {name: part for name, part in dict(parts()[0], **change).items() if part is not None}
    with pytest.raises(TypeError, match=words):
        unchanged(tmp_path).bind([], given)


def test_a_frame_needs_pandas(tmp_path, monkeypatch):
    model, given = unchanged(tmp_path), parts()[0]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="has no pandas: add it to the model's environment"):
        model.bind([], given)


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "csr_array", "csc_array"])
def test_a_sparse_matrix_is_put_together(kind, tmp_path):
    dense = np.arange(12.0).reshape(3, 4) * (np.arange(12).reshape(3, 4) % 3 == 0)
    matrix = getattr(sparse, kind.replace("array", "matrix"))(dense)
    given = {"X." + part: getattr(matrix, part) for part in ("data", "indices", "indptr")}
    given.update({"X.format": np.array(kind, object), "X.shape": np.array([3, 4])})
    model = unchanged(tmp_path)
    bound = model.bind([], given)
    np.testing.assert_array_equal(model.run(bound, None), dense)
    given["X.data"] *= 2
    np.testing.assert_array_equal(model.run(bound, None), 2 * dense)
    with pytest.raises(TypeError, match="'dok_matrix'; expected one of csr_matrix"):
        model.bind([], dict(given, **{"X.format": np.array("dok_matrix", object)}))


def test_sparse_results_become_dense(tmp_path):
    encoder = OneHotEncoder().fit([[0], [1], [2]])
    result = call(load(dumped(encoder, tmp_path)), np.array([[2], [0]]))
    np.testing.assert_array_equal(result, [[0, 0, 1], [1, 0, 0]])


def test_texts_are_taken_as_texts(tmp_path):
    counter = CountVectorizer().fit(["one two", "two"])
    result = call(load(dumped(counter, tmp_path)), np.array(["two two one", "b\u00fc"], object))
    np.testing.assert_array_equal(result, [[1, 2], [0, 0]])


def test_the_estimator_gets_the_array_itself(tmp_path):
    x = table(5)
    assert np.shares_memory(call(load(dumped(FunctionTransformer(), tmp_path)), x), x)


@pytest.mark.parametrize("saved", ["model.json", "model.ubj"])
def test_an_xgboost_classifier_stays_one(saved, tmp_path):
    path = str(tmp_path / saved)
    classifier = xgboost.XGBClassifier(n_estimators=3).fit(table(), LABELS)
    classifier.save_model(path)
    x = table(5)
    model = load(path, threads=1)
    assert (model.framework, model.version) == ("xgboost", xgboost.__version__)
    np.testing.assert_array_equal(call(model, x), classifier.predict(x))
    np.testing.assert_allclose(
        call(load(path, method="predict_proba"), x), classifier.predict_proba(x), rtol=1e-6
    )
    with pytest.raises(ValueError, match="has no transform; it has predict, predict_proba"):
        load(path, method="transform")


def test_files_are_told_apart_by_what_is_in_them(tmp_path):
    # The endings are wrong on purpose.
    text, trees, pickled = (str(tmp_path / name) for name in ("a.pkl", "b.joblib", "c.txt"))
    lightgbm.train({"verbosity": -1}, lightgbm.Dataset(table(), LABELS), 2).save_model(text)
    xgboost.train({}, xgboost.DMatrix(table(), LABELS), 2).save_model(trees + ".json")
    os.rename(trees + ".json", trees)
    joblib.dump(ESTIMATORS["classifier"](), pickled)
    assert load(text).framework == "lightgbm"
    assert load(pickled).framework == "scikit-learn"
    with open(trees, "rb") as file:
        assert kind_of(file.read(64)) == "xgboost"


def _by_pickle(protocol, opener=None):
    return lambda model: (opener or (lambda data: data))(pickle.dumps(model, protocol))


FORMS = {"protocol {}".format(number): _by_pickle(number) for number in range(pickle.HIGHEST_PROTOCOL + 1)}
FORMS.update(
    {
        "zlib": _by_pickle(4, zlib.compress),
        "gzip": _by_pickle(4, gzip.compress),
        "bz2": _by_pickle(4, bz2.compress),
        "xz": _by_pickle(4, lzma.compress),
    }
)


@pytest.mark.parametrize("form", list(FORMS))
def test_the_version_that_wrote_a_file_is_read_without_running_it(form, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(FORMS[form](ESTIMATORS["components"]()))
    assert estimators.written_by(str(path)) == sklearn.__version__
    path.write_bytes(FORMS[form]({"nothing": 1}))
    assert estimators.written_by(str(path)) is None


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
def test_the_version_is_read_from_what_joblib_wrote(compress, tmp_path):
    path = str(tmp_path / "model.joblib")
    joblib.dump(ESTIMATORS["components"](), path, compress=compress)
    assert estimators.written_by(path) == sklearn.__version__
    assert load(path).framework == "scikit-learn"


def test_a_pickle_that_cannot_be_read_names_both_versions(tmp_path):
    data = pickle.dumps(ESTIMATORS["components"](), 4)
    # As if written by a version that had the class elsewhere.
    assert b"sklearn.decomposition._pca" in data
    path = tmp_path / "model.pkl"
    version = sklearn.__version__.encode()
    data = data.replace(b"sklearn.decomposition._pca", b"sklearn.decomposition.gone").replace(
        version, b"9" * len(version)
    )
    path.write_bytes(data.replace(b"9" * len(version), b"0.9" + b"9" * (len(version) - 3)))
    with pytest.raises(
        RuntimeError,
        match=r"scikit-learn {} \(Python 3\.\d+\.\d+, numpy .*\) cannot load .*model\.pkl \(written by scikit-learn 0\.9\d*.*"
        r"Environment\(requirements=\['scikit-learn==0\.9".format(sklearn.__version__.replace(".", r"\.")),
    ):
        load(path)


def test_an_object_that_is_no_estimator_is_refused(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(
        TypeError, match=r"model\.pkl holds an object of type dict, which has none of the methods predict"
    ):
        load(path)


def test_an_unknown_method_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the method is 'fit'; expected one of predict, "):
        load(dumped(ESTIMATORS["classifier"](), tmp_path), method="fit")


def test_threads_are_set(tmp_path):
    from threadpoolctl import threadpool_info

    load(dumped(ESTIMATORS["classifier"](), tmp_path), threads=1)
    pools = threadpool_info()
    assert pools and {pool["num_threads"] for pool in pools} == {1}


def forest(n_jobs=-1):
    return RandomForestClassifier(2, n_jobs=n_jobs)


#: What computes with several threads or processes, and where in it that is said: fitted parts are not those that it was made of.
PARALLEL = {
    "forest": (forest, lambda one: [one]),
    "pipeline": (lambda: make_pipeline(StandardScaler(), forest()), lambda one: [one.steps[1][1]]),
    "voting": (
        lambda: VotingClassifier([("forest", forest()), ("one", forest(1))], n_jobs=-1),
        lambda one: [one, one.estimators_[0]],
    ),
    "search": (
        lambda: GridSearchCV(forest(), {"max_depth": [2, 3]}, cv=2, n_jobs=2),
        lambda one: [one, one.best_estimator_],
    ),
    "outputs": (lambda: OneVsRestClassifier(forest(), n_jobs=-1), lambda one: [one, *one.estimators_]),
    "xgboost": (lambda: xgboost.XGBClassifier(n_estimators=2), lambda one: [one]),
    "lightgbm": (lambda: lightgbm.LGBMClassifier(n_estimators=2, verbosity=-1), lambda one: [one]),
}


@pytest.mark.parametrize("kind", list(PARALLEL))
def test_no_part_of_an_estimator_has_more_threads_than_asked_for(kind, tmp_path):
    make, parts = PARALLEL[kind]
    path, x = dumped(make().fit(table(), LABELS), tmp_path), table(5)
    expected = call(load(path), x)
    for threads in (1, 3):
        model = load(path, threads=threads)
        told = [part.n_jobs for part in parts(model._estimator)]
        assert told and all(1 <= one <= threads for one in told)
        np.testing.assert_array_equal(call(model, x), expected)


def test_what_was_set_to_fewer_threads_stays_so_and_without_threads_everything_does(tmp_path):
    for given, threads, expected in ((2, 4, 2), (None, 4, None), (-1, None, -1)):
        path = dumped(forest(given).fit(table(), LABELS), tmp_path)
        assert load(path, threads=threads)._estimator.n_jobs == expected


def test_threads_that_a_booster_was_made_with_are_limited_by_any_name(tmp_path):
    booster = xgboost.XGBClassifier(n_estimators=2, nthread=4).fit(table(), LABELS)
    inner = load(dumped(booster, tmp_path), threads=1)._estimator.get_booster()
    config = json.loads(inner.save_config())
    assert config["learner"]["generic_param"]["nthread"] == "1"
    gradient = lightgbm.LGBMClassifier(n_estimators=2, num_threads=4, verbosity=-1).fit(table(), LABELS)
    assert load(dumped(gradient, tmp_path), threads=1)._estimator.get_params()["num_threads"] == 1


def test_a_word_that_is_called_like_a_setting_stays_as_it_is(tmp_path):
    words = CountVectorizer(token_pattern=r"\S+").fit(["a b c n_jobs num_threads"])
    assert words.vocabulary_["n_jobs"] == 3
    assert load(dumped(words, tmp_path), threads=1)._estimator.vocabulary_ == words.vocabulary_
