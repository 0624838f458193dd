"""The python platform: what a factory may be, what it finds beside it, and what is said when something is missing."""

import os
import sys
import textwrap

import numpy as np
import pytest

from opexec.ipc import wire
from opexec.workers import platforms


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(autouse=True)
def importing_leaves_no_traces(tmp_path):
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def load(source, in_process=True):
    return platforms.load("python", source, {"in_process": True} if in_process else {})


def call(model, *args, **kwargs):
    return model.run(model.bind(list(args), kwargs), None)


ADD = """
    def make():
        return lambda x, y: {"sum": x + y}
"""


def test_a_factory_in_a_file(write):
    model = load(write("model.py", ADD) + ":make")
    assert (model.framework, model.version) == ("python", sys.version.split()[0].rstrip("+"))
    assert model.inputs is None and model.outputs is None
    x = np.arange(3)
    assert call(model, x=x, y=x)["sum"].tolist() == [0, 2, 4]
    assert call(model, x, x)["sum"].tolist() == [0, 2, 4]
    assert call(model, x, y=x)["sum"].tolist() == [0, 2, 4]


def test_a_bound_call_sees_what_lies_there_now(write):
    model = load(write("model.py", ADD) + ":make")
    x = np.zeros(2)
    bound = model.bind([], {"x": x, "y": x})
    x[...] = 4
    assert model.run(bound, None)["sum"].tolist() == [8, 8]


def test_a_factory_may_be_a_class_or_an_attribute(write):
    path = write(
        "model.py",
        """
        class Model:
            def __call__(self, x):
                return x * 2

            @classmethod
            def build(cls):
                return cls()
        """,
    )
    for name in ("Model", "Model.build"):
        assert call(load(path + ":" + name), x=np.array(3)) == 6


def test_a_factory_in_a_module(write, tmp_path):
    write("package_of_models/__init__.py", "")
    write("package_of_models/adder.py", ADD)
    sys.path.insert(0, str(tmp_path))
    model = load("package_of_models.adder:make")
    assert call(model, x=np.array(1), y=np.array(2))["sum"] == 3


def test_a_file_is_read_anew_by_every_load_and_leaves_no_bytecode(write, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = write("model.py", "def make(): return lambda: 1")
    written = os.stat(path).st_mtime_ns
    assert call(load(path + ":make")) == 1
    write("model.py", "def make(): return lambda: 2")
    os.utime(path, ns=(written, written))  # of the same size and time, as a quick edit may be
    assert call(load(path + ":make")) == 2
    assert os.listdir(str(tmp_path)) == ["model.py"]


def test_a_file_knows_its_place_and_its_module(write):
    path = write(
        "model.py",
        """
        from __future__ import annotations
        import dataclasses

        @dataclasses.dataclass  # looks itself up in sys.modules
        class Kept:
            file: str = __file__

        def make():
            return lambda: (Kept().file, __name__)
        """,
    )
    assert call(load(path + ":make")) == (path, "model")


BESIDE = """
    import beside
    from package_beside import inner

    def make():
        import imported_by_factory

        return lambda: (beside.WHERE, inner.WHERE, imported_by_factory.WHERE)
"""


def write_siblings(write, folder):
    for name in ("beside", "package_beside/inner", "imported_by_factory", "imported_by_call"):
        write("{}/{}.py".format(folder, name), "WHERE = {!r}".format(folder))
    write("{}/package_beside/__init__.py".format(folder), "")
    return write(folder + "/model.py", BESIDE) + ":make"


def test_modules_beside_the_file_are_found_and_the_path_is_left_as_it_was(write):
    before = list(sys.path)
    assert call(load(write_siblings(write, "one"))) == ("one",) * 3
    assert sys.path == before


def test_models_in_one_process_get_their_own_modules_of_the_same_names(write):
    sources = {folder: write_siblings(write, folder) for folder in ("one", "two")}
    models = [(folder, load(sources[folder])) for folder in ("one", "two", "one", "two")]
    for folder, model in models:
        assert call(model) == (folder,) * 3


def test_a_module_that_is_called_like_the_file_stays_what_it_was(write):
    import json

    path = write("json.py", "def make(): return lambda: 1")
    assert call(load(path + ":make")) == 1
    assert sys.modules["json"] is json


def test_in_a_worker_the_folder_stays_on_the_path(write, tmp_path):
    write("late_sibling.py", "VALUE = 5")
    path = write(
        "model.py",
        """
        def make():
            def model():
                import late_sibling
                return late_sibling.VALUE
            return model
        """,
    )
    model = load(path + ":make", in_process=False)
    assert sys.path[0] == str(tmp_path)
    assert call(model) == 5


def test_a_load_that_fails_leaves_nothing_behind(write):
    path = list(sys.path)
    with pytest.raises(ZeroDivisionError):
        load(write("broken_model.py", "1 / 0") + ":make")
    assert sys.path == path
    assert "broken_model" not in sys.modules
    with pytest.raises(AttributeError):
        load(write("model.py", ADD) + ":other")
    assert sys.path == path


@pytest.mark.parametrize(
    "text, name, kind, words",
    [
        (ADD, "build", AttributeError, "model.py has no 'build'; it defines make"),
        ("x = 1", "build", AttributeError, "has no 'build'; it defines nothing"),
        ("from os import getcwd", "build", AttributeError, "it defines nothing"),
        (
            "make = 3",
            "make",
            TypeError,
            "'make' in .*model.py is of type int; expected a function that returns the model",
        ),
        ("def make(): pass", "make", TypeError, "returned an object of type NoneType; expected a callable"),
        (
            "def predict(x, y): return x",
            "predict",
            TypeError,
            r"'predict' in .*model.py takes \(x, y\); expected a factory: a function that needs no arguments",
        ),
        ("def make(): raise RuntimeError('no weights')", "make", RuntimeError, "^no weights$"),
        (
            "import no_such_module_anywhere",
            "make",
            ModuleNotFoundError,
            "^No module named 'no_such_module_anywhere'$",
        ),
        ("def make(:", "make", SyntaxError, "model.py"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, text, name, kind, words):
    with pytest.raises(kind, match=words):
        load(write("model.py", text) + ":" + name)


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="model.py"):
        load(str(tmp_path / "model.py") + ":make")


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.inner", "json.no_such_part"])
def test_a_module_that_the_interpreter_does_not_have(name):
    with pytest.raises(ModuleNotFoundError) as caught:
        load(name + ":make")
    missing = "no_such_package" if name.startswith("no") else "json.no_such_part"
    assert str(caught.value) == (
        "the interpreter {} has no module {!r}: install it in that environment, or give the path of its file, "
        "as in 'path/to/file.py:make'".format(sys.executable, missing)
    )


def test_a_module_that_lacks_something_itself_says_so(write, tmp_path):
    write("module_that_needs.py", "import no_such_module_anywhere")
    sys.path.insert(0, str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="^No module named 'no_such_module_anywhere'$"):
        load("module_that_needs:make")


def test_the_users_code_is_in_the_traceback(write):
    path = write("model.py", "def make():\n    def model(x):\n        return x / nothing\n    return model")
    with pytest.raises(NameError) as caught:
        call(load(path + ":make"), x=np.array(1))
    assert [os.path.basename(str(entry.path)) for entry in caught.traceback][-1] == "model.py"


def test_bit_patterns_are_refused_where_they_would_be_mistaken_for_numbers(write):
    model = load(write("model.py", ADD) + ":make")
    bits = np.zeros(3, [("opexec.bfloat16", "<u2")])
    assert wire.extension_name(bits.dtype) == "bfloat16"
    words = "{} is bfloat16; a Python model sees it through ml_dtypes: add ml_dtypes to the environment"
    with pytest.raises(TypeError, match=words.format("input 'x'")):
        model.bind([], {"x": bits})
    with pytest.raises(TypeError, match=words.format("input 1")):
        model.bind([np.zeros(3), bits], {})
    record = np.zeros(3, [("id", "i4"), ("score", "f4")])
    assert call(load(write("same.py", "def make(): return lambda x: x") + ":make"), x=record) is record


def test_an_unknown_option_is_refused(write):
    with pytest.raises(ValueError, match="'threads'"):
        platforms.load("python", write("model.py", ADD) + ":make", {"threads": 1})


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="'caffe' is not known in .*opexec has python, onnx"):
        platforms.load("caffe", "model", {})
