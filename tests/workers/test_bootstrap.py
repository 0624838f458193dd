"""The bootstrap: two rooms of opexec become importable in any interpreter, and nothing else changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

import opexec.ipc
import opexec.workers

ROOMS = [os.path.dirname(os.path.realpath(room.__file__)) for room in (opexec.ipc, opexec.workers)]

INSTALL = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bootstrap", sys.argv[1] + "/workers/bootstrap.py")
bootstrap = importlib.util.module_from_spec(spec)
dont, sys.dont_write_bytecode = sys.dont_write_bytecode, True
spec.loader.exec_module(bootstrap)
sys.dont_write_bytecode = dont
"""


@pytest.fixture()
def root(tmp_path):
    """A folder that holds copies of ipc and workers, and an opexec that must not be run."""
    root = tmp_path / "root"
    for room in ROOMS:
        shutil.copytree(
            room, str(root / os.path.basename(room)), ignore=shutil.ignore_patterns("__pycache__")
        )
    (root / "__init__.py").write_text("raise AssertionError('the caller's opexec was run in a worker')")
    (root / "model.py").write_text("")
    return root


def run(root, code, *arguments):
    """Run code in a fresh interpreter, as isolated as a worker, that has loaded the bootstrap of `root`; what it printed."""
    command = [sys.executable, "-I", "-c", INSTALL + code, str(root)] + [
        str(argument) for argument in arguments
    ]
    return subprocess.check_output(command, universal_newlines=True).strip()


def files_below(folder):
    return {os.path.join(path, name) for path, _, names in os.walk(str(folder)) for name in names}


def test_ipc_and_workers_are_importable_and_nothing_else_of_opexec_is(root):
    code = """
bootstrap.install(sys.argv[1])
import opexec, opexec.ipc.faults, opexec.workers.platforms
print(opexec.ipc.__file__)
for absent in ("opexec.model", "opexec.errors", "opexec.root", "opexec.ipc.absent", "opexec.workers.__main__.x"):
    try:
        __import__(absent)
    except ModuleNotFoundError as error:
        assert error.name == absent, error
        print(error)
"""
    printed = run(root, code).splitlines()
    assert printed[0] == str(root / "ipc" / "__init__.py")
    assert (
        printed[1]
        == "No module named 'opexec.model': within a worker only opexec.ipc and opexec.workers exist"
    )
    assert len(printed) == 6


def test_an_opexec_in_the_workers_own_environment_is_not_used(root, tmp_path):
    own = tmp_path / "own" / "opexec"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("raise AssertionError")
    (own / "model.py").write_text("")
    code = """
sys.path.insert(0, sys.argv[2])
bootstrap.install(sys.argv[1])
import opexec.ipc
try:
    import opexec.model
except ModuleNotFoundError:
    print(opexec.ipc.__file__)
"""
    assert run(root, code, own.parent) == str(root / "ipc" / "__init__.py")


def test_the_overlay_comes_last(root, tmp_path):
    code = "before = list(sys.path); bootstrap.install(sys.argv[1], sys.argv[2]); assert sys.path == before + [sys.argv[2]]"
    run(root, code, tmp_path)


@pytest.mark.parametrize("keep", [True, False])
def test_nothing_is_written_beside_the_source_and_other_modules_are_cached_as_ever(root, tmp_path, keep):
    users = tmp_path / "users"
    users.mkdir()
    (users / "users_module.py").write_text("VALUE = 1")
    before = files_below(root)
    code = """
assert not sys.dont_write_bytecode
bootstrap.install(sys.argv[1], None, sys.argv[3] or None)
sys.path.insert(0, sys.argv[2])
import opexec.ipc.faults, opexec.workers.platforms, users_module
"""
    run(root, code, users, tmp_path / "bytecode" if keep else "")
    assert files_below(root) == before
    assert [name for name in os.listdir(str(users / "__pycache__")) if name.startswith("users_module.")]
    assert (tmp_path / "bytecode").exists() == keep


IMPORT_COUNTING = """
import importlib.machinery
compiled = []
source_to_code = importlib.machinery.SourceFileLoader.source_to_code
def counted(self, data, path, **options):
    compiled.append(path.rpartition("/")[2])
    return source_to_code(self, data, path, **options)
importlib.machinery.SourceFileLoader.source_to_code = counted
bootstrap.install(sys.argv[1], None, sys.argv[2])
from opexec.ipc import faults
print(getattr(faults, "MARK", None), *compiled)
"""


def test_a_second_start_compiles_nothing_until_the_source_changes(root, tmp_path):
    bytecode = tmp_path / "bytecode"
    assert run(root, IMPORT_COUNTING, bytecode) == "None __init__.py faults.py"
    assert run(root, IMPORT_COUNTING, bytecode) == "None"
    with open(str(root / "ipc" / "faults.py"), "a") as file:
        file.write("\nMARK = 1\n")
    assert run(root, IMPORT_COUNTING, bytecode) == "1 faults.py"
    assert run(root, IMPORT_COUNTING, bytecode) == "1"


def test_another_copy_of_the_source_is_compiled_anew(root, tmp_path):
    run(root, IMPORT_COUNTING, tmp_path / "bytecode")
    other = tmp_path / "other"
    shutil.copytree(str(root), str(other))
    assert run(other, IMPORT_COUNTING, tmp_path / "bytecode") == "None __init__.py faults.py"


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-20], lambda data: b"", lambda data: data.split(b"\0")[0] + b"\0?"]
)
def test_damaged_bytecode_is_replaced(root, tmp_path, damage):
    bytecode = tmp_path / "bytecode"
    run(root, IMPORT_COUNTING, bytecode)
    for path in files_below(bytecode):
        with open(path, "rb") as file:
            data = file.read()
        with open(path, "wb") as file:
            file.write(damage(data))
    assert run(root, IMPORT_COUNTING, bytecode) == "None __init__.py faults.py"
    assert run(root, IMPORT_COUNTING, bytecode) == "None"


def test_a_folder_that_cannot_be_written_costs_only_time(root, tmp_path):
    (tmp_path / "bytecode").write_text("a file, and no folder")
    for _ in range(2):
        assert run(root, IMPORT_COUNTING, tmp_path / "bytecode") == "None __init__.py faults.py"
