"""Which platforms there are: opexec's own, those that a package registers, and modules named as what they are. Python >= 3.7."""

import importlib
import os
import sys
import textwrap
import types

import pytest

from opexec.workers import entry_points, platforms
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import cuda_index
from opexec.workers.platforms.packaged import Wrapped

CODE = """
from opexec.workers.platforms import Platform

class Model(Platform):
    framework, version = "doubling", "1"

    def __init__(self, source, options):
        self.loaded = source, options

def load(source, options):
    return Model(source, options)
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, as site-packages is one."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", sys.path + [str(folder)])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("doubl"):
            del sys.modules[name]


def install(site, entries, package="doubling", suffix=".dist-info"):
    info = site / (package + "-1.0" + suffix)
    info.mkdir()
    (info / "entry_points.txt").write_text(textwrap.dedent(entries))


def test_a_registered_platform_is_loaded_by_its_name(site):
    (site / "doubling_platform.py").write_text(CODE)
    install(site, "[console_scripts]\nx = y:z\n[opexec.platforms]\nDoubling = doubling_platform\n")
    model = platforms.load("Doubling", "a file", {"option": 1})
    assert (model.framework, model.loaded) == ("doubling", ("a file", {"option": 1}))


def test_an_attribute_of_a_module_can_be_the_platform(site):
    (site / "doubling_platform.py").write_text(CODE + "\nclass inner:\n    load = staticmethod(load)\n")
    install(site, "[opexec.platforms]\ndoubling = doubling_platform:inner [extra]\n", suffix=".egg-info")
    assert platforms.load("doubling", "s", {}).loaded == ("s", {})


def test_a_module_can_be_named_as_what_it_is(site):
    folder = site / "doubling_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "platform.py").write_text(CODE)
    importlib.invalidate_caches()  # the folder may have been listed before
    assert platforms.load("doubling_package.platform", "s", {}).loaded == ("s", {})
    with pytest.raises(
        ModuleNotFoundError, match="'doubling_package.absent', which .* does not have: install it"
    ):
        platforms.load("doubling_package.absent", "s", {})


def test_an_unknown_name_lists_what_there_is(site):
    install(site, "[opexec.platforms]\none = a\ntwo = b\n")
    with pytest.raises(ValueError) as caught:
        platforms.load("onxx", "s", {})
    words = str(caught.value)
    assert words.startswith("the platform 'onxx' is not known in " + sys.executable)
    assert "opexec has {}; ".format(", ".join(platforms.PLATFORMS)) in words
    assert "one, two" in words and "'opexec.platforms'" in words


def test_opexecs_own_names_cannot_be_taken(site):
    (site / "doubling_platform.py").write_text(CODE)
    install(site, "[opexec.platforms]\npython = doubling_platform\n")
    with pytest.raises(FileNotFoundError):
        platforms.load("python", "/no/such/file.py:factory", {})


@pytest.mark.parametrize("code", ["", "load = 3\n"])
def test_a_module_that_is_no_platform_is_refused(code, site):
    (site / "doubling_platform.py").write_text(code)
    install(site, "[opexec.platforms]\ndoubling = doubling_platform\n")
    with pytest.raises(
        TypeError, match=r"'doubling_platform', which has no function load\(source, options\)"
    ):
        platforms.load("doubling", "s", {})


def test_what_a_platform_itself_lacks_is_told_as_it_is(site):
    (site / "doubling_platform.py").write_text("import a_package_that_is_not_there\n")
    install(site, "[opexec.platforms]\ndoubling = doubling_platform\n")
    with pytest.raises(ModuleNotFoundError, match="^No module named 'a_package_that_is_not_there'"):
        platforms.load("doubling", "s", {})


@pytest.mark.parametrize(
    "platform, package",
    [("onnx", "onnxruntime"), ("torch", "torch"), ("torchscript", "torch"), ("jax", "jax")],
)
def test_a_framework_that_is_missing_is_named(platform, package, monkeypatch):
    # Whether or not this interpreter has it: a name that is None there cannot be imported.
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith("opexec.workers.platforms.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError) as caught:
        platforms.load(platform, "s", {})
    assert str(caught.value).startswith("the {} platform needs {}, which ".format(platform, package))
    assert "Environment(requirements=[{!r}])".format(package) in str(caught.value)


def test_a_broken_entry_is_passed_over(site):
    install(site, "no section\n", "broken")
    install(site, "[opexec.platforms]\ngood = a\n", "whole")
    (site / "folder-1.0.dist-info").mkdir()
    (site / "file-1.0.dist-info").write_text("")
    (site / "bytes-1.0.dist-info").mkdir()
    (site / "bytes-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe")
    assert entry_points.of_group("opexec.platforms") == {"good": "a"}
    assert entry_points.of_group("another.group") == {}


def test_the_first_on_the_path_counts(site, tmp_path, monkeypatch):
    later = tmp_path / "later"
    later.mkdir()
    monkeypatch.setattr(sys, "path", sys.path + [str(later), str(tmp_path / "absent")])
    install(later, "[opexec.platforms]\ndoubling = later\nother = later\n")
    install(site, "[opexec.platforms]\ndoubling = first\n")
    assert entry_points.of_group("opexec.platforms") == {"doubling": "first", "other": "later"}


def test_entry_points_are_those_that_importlib_metadata_finds(tmp_path):
    try:
        from importlib import metadata  # novermin: guarded
    except ImportError:
        import importlib_metadata as metadata  # which pytest brings along on Python 3.7

    found = metadata.entry_points()
    group = "console_scripts"
    theirs = found.select(group=group) if hasattr(found, "select") else found.get(group, ())
    values = {point.name: point.value.partition("[")[0].strip() for point in theirs}
    assert values and values == {
        name: value for name, value in entry_points.of_group(group).items() if name in values
    }


def test_tensorrt_says_what_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "model.engine"
    path.write_bytes(b"ftrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(ImportError, match=r"needs tensorrt in the model's environment, .*'cuda-python'\]\)"):
        platforms.load("tensorrt", str(path), {})
    with pytest.raises(ValueError, match="a TensorRT engine runs on a GPU: expected 'cuda:N'"):
        platforms.load("tensorrt", str(path), {"device": "cpu"})
    with pytest.raises(ValueError, match="the tensorrt platform knows no option 'threads'; it knows device"):
        platforms.load("tensorrt", str(path), {"threads": 1})
    with pytest.raises(FileNotFoundError, match="no such file: .*absent.engine"):
        platforms.load("tensorrt", str(tmp_path / "absent.engine"), {})
    # With the library, and without what reaches the GPU.
    monkeypatch.setitem(sys.modules, "tensorrt", types.ModuleType("tensorrt"))
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(ImportError, match="needs cuda-python in the model's environment"):
        platforms.load("tensorrt", str(path), {})


def test_each_of_opexecs_own_has_its_module():
    folder = os.path.dirname(platforms.__file__)
    assert {name + ".py" for name in platforms.PLATFORMS} <= set(os.listdir(folder))


def test_a_package_wants_inputs_aligned_where_its_platform_does():
    for aligned in (False, True):
        model = Platform()
        model.aligned = aligned
        assert Wrapped(model).aligned is aligned


@pytest.mark.parametrize(
    "device, index", [("cpu", None), (None, None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)]
)
def test_the_gpu_that_a_device_names(device, index):
    assert cuda_index({"device": device}) == index


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:0\n", 0, ["cuda"]], ids=repr)
def test_a_device_of_no_known_form_is_refused(device):
    with pytest.raises(ValueError, match="the option device is .*; expected 'cpu', 'cuda' or 'cuda:0'"):
        cuda_index({"device": device})
