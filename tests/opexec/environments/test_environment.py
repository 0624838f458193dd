"""Environments: real builds, and what happens when two want the same one, when a builder is killed, when nothing fits.

Most tests use packages made here, of a few hundred bytes, from a folder that is all there is to install from:
quick, offline, and every version is known. Their numpy is one of them, so the two tests at the end build with
the real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.environments import interpreter_search
from opexec.errors import BuildError
from opexec.files import caches
from tests import shelves
from tests.absent import absent
from tests.shelves import Served, home_of, index, quiet, versions, wheel

own_settings = shelves.own_settings
shelf = shelves.shelf

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 60.0  # seconds after which something that never happens fails a test

# Resolves argv[1:] and says how it went, step by step.
RESOLVE = """
import sys
from opexec.environment import Environment
print(Environment(requirements=sys.argv[1:]).resolve(lambda step: print(step, flush=True)), flush=True)
"""


def homes() -> list[Path]:
    """The folders of environments in the cache, whole or not."""
    return [path for path in caches.folder("environments").iterdir() if path.is_dir()]


# Building


def test_built_once_and_then_found_without_running_anything(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = Environment(requirements=["tiny<2"])
    python = environment.resolve()
    assert versions(python, "tiny", "numpy") == ["1.0", "1.5"]
    told = capfd.readouterr()
    assert told.out == "" and "opexec: installing 2 packages\n" in told.err and "ready in" in told.err

    monkeypatch.setattr(subprocess, "Popen", None)
    shutil.rmtree(shelf)
    assert Environment(requirements=["Tiny < 2"]).resolve() == python
    assert capfd.readouterr() == ("", "")


def test_finding_a_built_one_imports_nothing_slow(shelf: Path) -> None:
    Environment(sys.executable, ["tiny"]).resolve(quiet)
    program = (
        "import sys; from opexec.environment import Environment; Environment(sys.executable, ['tiny']).resolve();"
        "print(*sorted({'packaging', 'platformdirs', 'rich', 'uv'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=REPOSITORY) == "\n"


def test_bytecode_is_compiled_where_python_is_told_not_to_write_it(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    python = Environment(requirements=["tiny"]).resolve(quiet)
    assert len(list(home_of(python).glob("venv/lib/*/site-packages/tiny/__pycache__/__init__.*.pyc"))) == 1


def test_numpy_comes_with_every_environment_and_is_chosen_last(shelf: Path) -> None:
    wheel(shelf, "numpy", "2.5")
    assert versions(Environment().resolve(quiet), "numpy") == ["2.5"]
    # The newest `capped` wants an old numpy. A resolver that is asked for numpy too begins with the newest numpy, and ends with
    # an old `capped`.
    wheel(shelf, "capped", "1.0")
    wheel(shelf, "capped", "2.0", "numpy<2")
    wheel(shelf, "top", "1.0", "capped")
    python = Environment(requirements=["top"]).resolve(quiet)
    assert versions(python, "capped", "numpy") == ["2.0", "1.5"]


def test_another_interpreter_is_another_environment(shelf: Path) -> None:
    venv = home_of(Environment(requirements=["tiny"]).resolve(quiet)) / "venv"
    # A venv is not built upon: its base is. So this is the same environment, and the venv is not written to.
    assert Environment(venv, ["tiny"]).resolve(quiet) == venv / "bin" / "python"
    others = [found for found in interpreter_search.installed() if found != interpreter_search.calling()]
    for other in others[:1]:
        python = Environment(other.path, ["tiny"]).resolve(quiet)
        assert home_of(python) != venv.parent
        program = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
        assert subprocess.check_output([python, "-I", "-c", program], text=True).strip() == other.version


def test_a_damaged_environment_is_rebuilt_with_the_same_versions(shelf: Path) -> None:
    environment = Environment(requirements=["tiny"])
    python = environment.resolve(quiet)
    assert versions(python, "tiny") == ["2.0"]
    assert "tiny==2.0" in (home_of(python) / "requirements.lock").read_text()
    wheel(shelf, "tiny", "3.0")
    (home_of(python) / "venv" / "bin" / "python").unlink()
    assert environment.resolve(quiet) == python
    assert versions(python, "tiny") == ["2.0"]

    shutil.rmtree(home_of(python))
    assert versions(environment.resolve(quiet), "tiny") == ["3.0"]


def test_versions_that_can_no_longer_be_had_are_explained(shelf: Path) -> None:
    environment = Environment(requirements=["tiny"])
    home = home_of(environment.resolve(quiet))
    shutil.rmtree(home / "venv")
    (shelf / "tiny-2.0-py3-none-any.whl").unlink()
    with pytest.raises(
        BuildError, match=rf"tiny==2\.0(.|\n)*delete {home}/requirements\.lock to choose them anew"
    ):
        environment.resolve(quiet)
    (home / "requirements.lock").unlink()
    assert versions(environment.resolve(quiet), "tiny") == ["1.0"]


def test_a_local_package_that_changed_makes_a_new_environment(shelf: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    backend_package(source)
    environment = Environment(requirements=[f"slow @ {source.as_uri()}"])
    before = environment.resolve(quiet)
    assert environment.resolve(quiet) == before and versions(before, "slow") == ["1"]
    (source / "slow" / "__init__.py").write_text("__version__ = '1-changed'\n")
    assert versions(environment.resolve(quiet), "slow") == ["1-changed"]
    assert versions(before, "slow") == ["1"]


# Where packages come from


def test_pips_find_links_are_handed_on(shelf: Path) -> None:
    wheel(shelf, "tiny", "2.0+cpu")
    python = Environment(requirements=["tiny==2.0"]).resolve(quiet)
    assert versions(python, "tiny") == ["2.0+cpu"]


def test_pips_indexes_are_searched_as_pip_does(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    main, extra = index(tmp_path / "main", "tiny", "7.0"), index(tmp_path / "extra", "tiny", "6.0")
    config.write_text(f"[global]\nindex-url = {main}\nextra-index-url =\n  {extra}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.delenv("PIP_NO_INDEX")
    # The best version of all. By uv's own rule the extra index, which comes first, would hide the main one.
    assert versions(Environment(requirements=["tiny"]).resolve(quiet), "tiny") == ["7.0"]


def test_other_sources_make_another_environment(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = Environment(requirements=["tiny"])
    before = environment.resolve(quiet)
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "constraints.txt"))
    (tmp_path / "constraints.txt").write_text("tiny<2\n")
    assert versions(environment.resolve(quiet), "tiny") == ["1.0"]
    (tmp_path / "constraints.txt").write_text("tiny<3\n")
    assert versions(environment.resolve(quiet), "tiny") == ["2.0"]
    monkeypatch.delenv("UV_CONSTRAINT")
    assert environment.resolve(quiet) == before


def test_the_working_directory_does_not_matter(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "project", tmp_path):  # where the caller stands, and above the cache
        folder.mkdir(exist_ok=True)
        (folder / "uv.toml").write_text("if uv read this it would fail")
    monkeypatch.chdir(tmp_path / "project")
    assert versions(Environment(requirements=["tiny"]).resolve(quiet), "tiny") == ["2.0"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONDA_PREFIX", "/nowhere"),
        ("PYTHONHOME", "/nowhere"),
        ("PYTHONPATH", "{tmp_path}"),
        ("UV_MANAGED_PYTHON", "1"),
        ("UV_PROJECT", "/nowhere"),
        ("UV_PYTHON", "3.99"),
        ("UV_REQUIRE_HASHES", "1"),
        ("UV_SYSTEM_PYTHON", "1"),
        ("UV_VENV_SEED", "1"),
        ("UV_WORKING_DIR", "/nowhere"),
        ("VIRTUAL_ENV", "/nowhere"),
    ],
)
def test_what_surrounds_the_caller_does_not_matter(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(7)")
    monkeypatch.setenv(name, value.format(tmp_path=tmp_path))
    python = Environment(requirements=["tiny"]).resolve(quiet)
    installed = home_of(python).glob("venv/lib/*/site-packages/*.dist-info")
    assert sorted(path.name for path in installed) == ["numpy-1.5.dist-info", "tiny-2.0.dist-info"]


# What cannot be built


def test_a_conflict_is_explained_by_uv_and_leaves_nothing(shelf: Path) -> None:
    wheel(shelf, "old", "1.0", "tiny<2")
    wheel(shelf, "new", "1.0", "tiny>=2")
    environment = Environment(requirements=["old", "new"])
    with pytest.raises(BuildError) as caught:
        environment.resolve(quiet)
    said = " ".join(str(caught.value).split())  # uv breaks its lines where they get long
    assert "cannot build the environment Python with new, old" in said
    assert "tiny<2" in said and "tiny>=2" in said and "your requirements are unsatisfiable" in said
    assert f"UV_FIND_LINKS={shelf}" in said
    assert homes() == []
    wheel(shelf, "old", "1.1", "tiny")
    assert versions(environment.resolve(quiet), "old", "tiny") == ["1.1", "2.0"]


def test_a_package_that_does_not_build_is_explained(shelf: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    backend_package(source)
    (source / "backend.py").write_text("raise RuntimeError('no compiler here')\n")
    with pytest.raises(BuildError, match="no compiler here"):
        Environment(requirements=[f"slow @ {source.as_uri()}"]).resolve(quiet)
    assert homes() == []


def test_an_unknown_python_lists_what_there_is(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PATH", os.defpath)
    with pytest.raises(BuildError, match=re.escape(str(interpreter_search.calling().path))):
        Environment("3.99").resolve(quiet)


def test_a_cache_that_cannot_be_written_to_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "file"))
    for python in (None, "3", "3.99"):
        with pytest.raises(
            BuildError, match=r"^expected to keep files in the cache folder .* Set OPEXEC_CACHE"
        ):
            Environment(python).resolve(quiet)


# Several who want the same one, and builders that are stopped. The package's build waits until the test says go.


def backend_package(folder: Path) -> None:
    """The source of a package `slow`. While it is built it connects to the socket in TEST_GATE, if set, and waits for word."""
    (folder / "slow").mkdir(parents=True)
    (folder / "slow" / "__init__.py").write_text("__version__ = '1'\n")
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'slow'\nversion = '1'\n[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    program = """
        import os, socket, zipfile
        def build_wheel(folder, config_settings=None, metadata_directory=None):
            if os.environ.get("TEST_GATE"):
                with socket.socket(socket.AF_UNIX) as gate:
                    gate.connect(os.environ["TEST_GATE"])
                    gate.recv(1)
            with zipfile.ZipFile(os.path.join(folder, "slow-1-py3-none-any.whl"), "w") as wheel:
                wheel.write("slow/__init__.py")
                wheel.writestr("slow-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: slow\\nVersion: 1\\n")
                wheel.writestr("slow-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
                wheel.writestr("slow-1.dist-info/RECORD", "")
            return "slow-1-py3-none-any.whl"
    """
    (folder / "backend.py").write_text(textwrap.dedent(program))


class Gate:
    """Where a package's build waits."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(PATIENCE)
        self._listener.bind(self.path)
        self._listener.listen()

    def reached(self) -> socket.socket:
        """Returns when a build has come to the gate; sending a byte lets it pass, end of file tells that it was stopped."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE)
        return connection

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


@contextlib.contextmanager
def resolving(tmp_path: Path, gate: Gate | None) -> Iterator[subprocess.Popen[str]]:
    """Another process that resolves an environment with `slow` in it."""
    source = tmp_path / "source"
    if not source.exists():
        backend_package(source)
    process = subprocess.Popen(
        [sys.executable, "-c", RESOLVE, f"slow @ {source.as_uri()}"],
        cwd=REPOSITORY,
        env={**os.environ, "TEST_GATE": gate.path if gate else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"the process ended without saying {words!r}: {process.communicate()[1]}")


def test_of_two_processes_one_builds_and_both_get_it(shelf: Path, tmp_path: Path, gate: Gate) -> None:
    with resolving(tmp_path, gate) as first:
        building = gate.reached()
        with resolving(tmp_path, gate) as second:
            assert f"waiting for process {first.pid}" in read_until(second, "waiting")
            building.send(b"\n")
            told_first, errors_first = first.communicate(timeout=PATIENCE)
            told_second, errors_second = second.communicate(timeout=PATIENCE)
    assert (first.returncode, second.returncode) == (0, 0), errors_first + errors_second
    assert "ready in" in told_first
    assert told_second.splitlines() == told_first.splitlines()[-1:]  # the path, and nothing built
    assert versions(Path(told_second.strip()), "slow") == ["1"]


def test_of_many_threads_one_builds(shelf: Path) -> None:
    told: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(Environment(requirements=["tiny"]).resolve, told.append) for _ in range(4)]
        assert len({each.result(PATIENCE) for each in asked}) == 1
    assert sum(step.startswith("ready") for step in told) == 1


def test_a_killed_build_leaves_nothing_that_is_used(shelf: Path, tmp_path: Path, gate: Gate) -> None:
    with resolving(tmp_path, gate) as first:
        building = gate.reached()
        first.kill()
        first.communicate()
    (home,) = homes()
    assert (home / "venv").exists() and not (home / "complete.json").exists()
    litter = home / "venv" / "litter"
    litter.write_text("")
    with resolving(tmp_path, None) as second:
        # The killed one's uv may still write into the folder, so nobody else may yet.
        assert f"waiting for process {first.pid}" in read_until(second, "waiting")
        building.close()
        told, errors = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, errors
    assert "ready in" in told and not litter.exists()
    assert versions(Path(told.splitlines()[-1]), "slow") == ["1"]


def test_an_interrupted_build_stops_uv_and_leaves_nothing(shelf: Path, tmp_path: Path, gate: Gate) -> None:
    with resolving(tmp_path, gate) as process:
        building = gate.reached()
        process.send_signal(signal.SIGINT)
        assert building.recv(1) == b""  # what uv had started is gone
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == -signal.SIGINT and "KeyboardInterrupt" in errors
    assert homes() == []


# What the user sees


def test_a_terminal_gets_one_live_line_and_then_the_result(shelf: Path) -> None:
    controller, terminal = pty.openpty()
    program = "from opexec.environment import Environment; Environment(requirements=['tiny']).resolve()"
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=REPOSITORY, env=environ, stderr=terminal, stdout=subprocess.PIPE
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other side has closed it
        while select.select([controller], [], [], PATIENCE)[0] and (part := os.read(controller, 65536)):
            shown += part
    os.close(controller)
    assert process.communicate() == (b"", None) and process.returncode == 0
    lasting = re.split(r"\x1b\[2K|\r\n", shown.decode())
    assert "\x1b[?25l" in shown.decode()  # it was live: the cursor was hidden meanwhile
    result = [line for line in lasting if re.search(r"opexec: environment .* ready in .* 2 packages", line)]
    assert len(result) == 1


def test_what_was_built_can_be_read_from_its_summary(shelf: Path) -> None:
    secret = "https://me:token@127.0.0.1:9/simple"  # with --no-index it is never asked
    environment = Environment(requirements=["tiny"], index_url=secret, env_vars={"KEY": "secret"})
    home = home_of(environment.resolve(quiet))
    text = (home / "complete.json").read_text()
    assert "token" not in text and "secret" not in text
    summary = json.loads(text)
    assert summary["requested"] == {"requirements": ["tiny"], "index_url": "https://127.0.0.1:9/simple"}
    ours = interpreter_search.calling()
    assert summary["made_with"]["version"] == ours.version and summary["made_with"]["path"] == str(ours.path)
    assert summary["packages"] == {"numpy": "1.5", "tiny": "2.0"}
    used = int(subprocess.check_output(["du", "-s", "--block-size=1", home / "venv"], text=True).split()[0])
    assert summary["size"] == used
    assert sorted(path.name for path in home.iterdir()) == [
        "complete.json",
        "requirements.lock",
        "used",
        "venv",
    ]


def test_what_uv_says_of_an_index_with_a_password_does_not_tell_it(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    nobody = "http://someone:pass-word@127.0.0.1:9/simple"
    told: list[str] = []
    with pytest.raises(BuildError, match="127.0.0.1:9") as caught:
        Environment(requirements=["tiny"], index_url=nobody).resolve(told.append)
    with pytest.raises(BuildError, match="127.0.0.1:9") as direct:
        Environment(requirements=[f"tiny @ {nobody}/tiny-1.0-py3-none-any.whl"]).resolve(told.append)
    shown = "".join(traceback.format_exception(caught.value) + traceback.format_exception(direct.value))
    assert "127.0.0.1:9" in "".join(told)
    assert "pass-word" not in shown + "".join(told) and "someone" not in shown + "".join(told)


def test_a_password_in_a_requirement_is_for_the_user_alone(
    shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(shelf)
    place = served.url.replace("://", "://me:pass-word@") + "tiny-1.0-py3-none-any.whl"
    try:
        home = home_of(Environment(requirements=[f"tiny @ {place}"]).resolve(quiet))
    finally:
        served.stop()
    lock = home / "requirements.lock"
    assert f"tiny @ {place}" in lock.read_text() and lock.stat().st_mode & 0o077 == 0
    assert "pass-word" not in lock.read_text().partition("\n")[0]
    assert "pass-word" not in (home / "complete.json").read_text()


def test_it_outlives_uvs_cache(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_LINK_MODE", "symlink")
    python = Environment(requirements=["tiny"]).resolve(quiet)
    shutil.rmtree(os.environ["UV_CACHE_DIR"])
    assert versions(python, "tiny") == ["2.0"]


def test_the_last_use_is_kept_to_a_minute(shelf: Path) -> None:
    environment = Environment(requirements=["tiny"])
    used = home_of(environment.resolve(quiet)) / "used"
    for age, renewed in ((30, False), (90, True)):
        before = time.time() - age
        os.utime(used, (before, before))
        environment.resolve(quiet)
        assert (used.stat().st_mtime > before + 1) == renewed


# With the real numpy, in the user's own cache, where it stays for the next run


@pytest.mark.slow
@pytest.mark.parametrize("python", ["3.7", "3.13"])
def test_numpy_for_an_old_and_a_new_python(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_CONFIG_FILE")
    try:
        interpreter_search.find(python)
    except BuildError as error:
        absent(f"Python {python}: {error}")
    found = Environment(python).resolve()
    program = "import numpy, sys; print('%d.%d' % sys.version_info[:2], numpy.zeros(3).sum(), numpy.__file__)"
    version, total, file = subprocess.check_output([found, "-I", "-c", program], text=True).split()
    assert (version, total) == (python, "0.0")
    assert Path(file).is_relative_to(home_of(found) / "venv")
    tag = "cpython-" + python.replace(".", "")
    assert (Path(file).parent / "__pycache__" / f"__init__.{tag}.pyc").exists()


@pytest.mark.slow
def test_the_newest_python_that_a_real_release_has_wheels_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_CONFIG_FILE")
    # numpy 1.21.6 has wheels for 3.7 to 3.10, and sources that a later Python would try to compile.
    fitting = [
        found for found in interpreter_search.installed() if (3, 7) <= found.version_info[:2] <= (3, 10)
    ]
    if not fitting:
        absent("a Python from 3.7 to 3.10")
    ours = interpreter_search.calling().version_info[:2]
    newest = ours if ours <= (3, 10) else max(found.version_info[:2] for found in fitting)
    environment = Environment(requirements=["numpy==1.21.6", "six", "packaging"])
    program = "import numpy, packaging, six, sys; print('%d.%d' % sys.version_info[:2], numpy.__version__)"
    said = subprocess.check_output([environment.resolve(), "-I", "-c", program], text=True).split()
    assert said == [f"{newest[0]}.{newest[1]}", "1.21.6"]
