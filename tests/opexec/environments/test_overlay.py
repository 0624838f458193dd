"""The overlay: msgpack that a foreign interpreter imports under a name of its own."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest

from opexec.environments import interpreter_search, overlay
from opexec.environments.interpreters import Interpreter, probe
from opexec.errors import BuildError
from tests.absent import absent

VALUE = {"name": "x", "shape": [1, 2], "raw": b"\x00\xff", "none": None, "ratio": 0.5, "big": 2**63}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))


def run(interpreter: Interpreter, program: str, *arguments: str | Path) -> bytes:
    return subprocess.check_output([interpreter.path, "-I", "-c", program, *arguments])


def interpreter_for(python: str) -> Interpreter:
    try:
        return interpreter_search.find(python)
    except BuildError as error:
        absent(f"Python {python}: {error}")


@pytest.mark.parametrize("python", ["3.7", "3.8", "3.13"])
def test_it_speaks_with_the_callers_msgpack(python: str) -> None:
    interpreter = interpreter_for(python)
    folder = overlay.ensure(interpreter)
    program = (
        "import sys; sys.path.append(sys.argv[1]); from opexec_msgpack import packb, unpackb, Packer\n"
        "value = unpackb(bytes.fromhex(sys.argv[2]), raw=False)\n"
        "assert Packer.__module__ == 'opexec_msgpack.fallback' and 'msgpack' not in sys.modules\n"
        "sys.stdout.buffer.write(packb(value, use_bin_type=True))"
    )
    sent = msgpack.packb(VALUE, use_bin_type=True)
    assert msgpack.unpackb(run(interpreter, program, folder, sent.hex()), raw=False) == VALUE


def test_it_is_compiled_and_a_worker_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    interpreter = interpreter_search.calling()
    folder = overlay.ensure(interpreter)
    package = folder / "opexec_msgpack"
    assert not list(package.glob("*.so"))
    sources = sorted(path.stem for path in package.glob("*.py"))
    compiled = sorted((package / "__pycache__").iterdir())
    assert [path.name for path in compiled] == [f"{name}.{interpreter.cache_tag}.pyc" for name in sources]
    before = [path.stat().st_mtime_ns for path in compiled]
    program = (
        "import sys; sys.path.append(sys.argv[1]); import opexec_msgpack; print(opexec_msgpack.__cached__)"
    )
    assert run(interpreter, program, folder).decode().strip() in map(str, compiled)
    assert [path.stat().st_mtime_ns for path in sorted((package / "__pycache__").iterdir())] == before


def test_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = interpreter_search.calling()
    folder = overlay.ensure(interpreter)
    monkeypatch.setattr(subprocess, "run", None)
    assert overlay.ensure(interpreter) == folder
    assert (
        overlay.ensure(probe(sys.executable)) == folder
    )  # a venv of it has the same implementation, ABI and platform


def test_many_at_once_share_one() -> None:
    interpreter = interpreter_search.calling()
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(overlay.ensure, [interpreter] * 4))
    (folder,) = made
    assert list(folder.parent.iterdir()) == [folder]


def test_another_msgpack_or_interpreter_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter = interpreter_search.calling()
    folder = overlay.ensure(interpreter)
    assert overlay.ensure(interpreter_for("3.8")) != folder
    other = callers_msgpack(tmp_path, monkeypatch)
    (other / "__init__.py").write_text((other / "__init__.py").read_text() + "version = (99, 0)\n")
    changed = overlay.ensure(interpreter)
    assert changed != folder
    program = (
        "import sys; sys.path.append(sys.argv[1]); import opexec_msgpack; print(opexec_msgpack.version[0])"
    )
    assert run(interpreter, program, changed) == b"99\n"


def test_one_that_does_not_work_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = callers_msgpack(tmp_path, monkeypatch)
    (other / "ext.py").write_text("raise ImportError('wants Python 4')\n")
    for _ in range(2):
        with pytest.raises(
            BuildError, match=r"to work in Python (.|\n)*wants Python 4(.|\n)*Use a newer Python"
        ):
            overlay.ensure(interpreter_search.calling())
    assert not list((tmp_path / "cache" / "overlays").iterdir())


def test_a_missing_part_of_msgpack_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = callers_msgpack(tmp_path, monkeypatch)
    (other / "fallback.py").unlink()
    with pytest.raises(BuildError, match="fallback.py, in .* Reinstall msgpack"):
        overlay.ensure(interpreter_search.calling())


def callers_msgpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the installed msgpack that stands in its place."""
    copy = tmp_path / "installed" / "msgpack"
    copy.mkdir(parents=True)
    assert msgpack.__file__ is not None
    for path in Path(msgpack.__file__).parent.glob("*.py"):
        (copy / path.name).write_text(path.read_text())
    monkeypatch.syspath_prepend(str(copy.parent))
    monkeypatch.delitem(sys.modules, "msgpack")
    return copy
