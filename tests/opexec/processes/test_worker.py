"""WorkerProcess: starts in any interpreter or says plainly why not; its death is seen at once; its end never hangs and leaves nothing."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import numpy as np
import psutil
import pytest

import opexec
from opexec import BuildError, CallTimeout, Environment, LoadError, OpexecError, WorkerDied
from opexec.environments import overlay
from opexec.environments.interpreter_search import find
from opexec.environments.interpreters import probe
from opexec.ipc.faults import PeerGone
from opexec.processes.worker import WorkerProcess
from opexec.supervision.restarts import Restarts
from tests.absent import absent
from tests.loaded import in_thread, source
from tests.models import Gate

# Stands where the interpreter would: a worker that shakes hands and then does as its test says.
DOUBLE = """\
#!{python}
import os, signal, socket, subprocess, sys, time
options = sys.argv[sys.argv.index("--control") :]
given = dict(zip(options[::2], options[1::2]))
sys.dont_write_bytecode = True  # beside the sources
sys.path.append({root!r})
from workers import bootstrap
bootstrap.install({root!r})
from opexec.ipc.control import Control
from opexec.workers import handshake
control = Control(socket.socket(fileno=int(given["--control"])))
handshake.answer(control)
"""
ROOT = str(Path(opexec.__file__).parent)


@pytest.fixture()
def double(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts a worker that goes on with the given code after its handshake."""
    made: list[WorkerProcess] = []

    def start(code: str) -> WorkerProcess:
        path = tmp_path / f"double{len(made)}"
        path.write_text(DOUBLE.format(python=sys.executable, root=ROOT) + textwrap.dedent(code))
        path.chmod(0o755)
        made.append(WorkerProcess.start(path, "double"))
        return made[-1]

    yield start
    for worker in made:
        worker.close(grace=0)


@pytest.fixture()
def worker() -> Iterator[WorkerProcess]:
    """A real worker in the caller's interpreter, that waits for its first message."""
    started = WorkerProcess.start(sys.executable, "detector")
    yield started
    started.close(grace=0)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has neither numpy nor msgpack."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.fixture()
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "script"
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


def assert_dead(pid: int) -> None:
    """Not there any more, not even as a child to wait for."""
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def wait_for_end(pidfd: int) -> None:
    assert select.select([pidfd], [], [], 60)[0], "it lives on"


def pids(message: dict) -> list[int]:
    """Descriptors that tell of the end of processes that are not our children."""
    return [os.pidfd_open(pid) for pid in message["pids"]]


# Starting


@pytest.mark.parametrize(
    "version", [pytest.param("3.7", marks=pytest.mark.slow), pytest.param("3.13", marks=pytest.mark.slow)]
)
def test_it_starts_in_another_interpreter_through_the_overlay(version: str) -> None:
    try:
        python = Environment(str(find(version).path), ["numpy"]).resolve()
    except BuildError as error:
        absent(f"Python {version} with numpy: {error}")
    worker = WorkerProcess.start(python, "m", overlay=overlay.ensure(probe(python)))
    try:
        assert worker.hello["python"].startswith(version + ".")
        assert worker.hello["pid"] == worker.pid
        assert worker.alive
    finally:
        worker.close(grace=0)
    assert not worker.alive
    assert_dead(worker.pid)


def test_it_says_what_it_is(worker: WorkerProcess) -> None:
    assert worker.name == "detector"
    assert worker.interpreter == sys.executable
    assert worker.hello["python"] == "{}.{}.{}".format(*sys.version_info)
    assert worker.hello["numpy"] == numpy.__version__
    assert worker.hello["executable"] == sys.executable
    assert repr(worker) == f"<WorkerProcess 'detector' pid {worker.pid}, alive>"


def test_it_is_alone_in_its_session_with_nothing_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUNBUFFERED", "VIRTUAL_ENV", "REMOVED"):
        monkeypatch.setenv(name, "/of/the/caller")
    monkeypatch.setenv("KEPT", "1")
    reader, writer = os.pipe()
    try:
        os.set_inheritable(writer, True)
        worker = WorkerProcess.start(sys.executable, "m", env_vars={"ADDED": "2", "REMOVED": None})
        try:
            folder = Path(f"/proc/{worker.pid}")
            assert os.getsid(worker.pid) == os.getpgid(worker.pid) == worker.pid
            environment = dict(
                entry.split("=", 1) for entry in folder.joinpath("environ").read_text().split("\0") if entry
            )
            assert environment["KEPT"] == "1" and environment["ADDED"] == "2"
            assert not [name for name in environment if name.startswith(("PYTHON", "VIRTUAL_ENV", "REMOVED"))]
            opened = {path.name: os.readlink(path) for path in folder.joinpath("fd").iterdir()}
            assert opened["0"] == "/dev/null"
            assert os.readlink(f"/proc/self/fd/{writer}") not in opened.values()
        finally:
            worker.close(grace=0)
    finally:
        os.close(reader)
        os.close(writer)


def test_neither_start_nor_end_leaves_a_descriptor(bare: Path, descriptors: Callable[[], set[str]]) -> None:
    WorkerProcess.start(sys.executable, "m").close(grace=0)  # what stays: the thread that reads logs
    before = descriptors()
    WorkerProcess.start(sys.executable, "m").close(grace=0)
    for wrong in ("/nonexistent", "/bin/true", bare):
        with pytest.raises(LoadError):
            WorkerProcess.start(wrong, "m")
    assert descriptors() == before


def test_a_worker_started_from_a_thread_outlives_the_thread() -> None:
    made: list[WorkerProcess] = []
    thread = threading.Thread(target=lambda: made.append(WorkerProcess.start(sys.executable, "m")))
    thread.start()
    thread.join()
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        pass
    assert made[0].alive
    made[0].close(grace=0)


# What cannot be started


@pytest.mark.parametrize(
    ("interpreter", "said"),
    [
        (
            "/nonexistent/python",
            "expected a Python interpreter at /nonexistent/python; there is no such file",
        ),
        ("/etc/passwd", "it cannot be executed: Permission denied"),
        ("/etc", "it cannot be executed: Permission denied"),
        ("/bin/true", "exited with code 0 before it said hello"),
        ("/bin/cat", "exited with code 1 before it said hello"),
    ],
)
def test_what_is_no_python_is_a_clear_load_error(interpreter: str, said: str) -> None:
    with pytest.raises(LoadError, match=said) as info:
        WorkerProcess.start(interpreter, "m")
    assert info.value.stage == "spawn"


def test_a_load_error_quotes_the_last_lines_it_printed() -> None:
    with pytest.raises(LoadError, match="(?s)last lines of its standard error:.*invalid option"):
        WorkerProcess.start("/bin/cat", "m")


@pytest.mark.parametrize("text", ["no program at all", "#!/nonexistent/interpreter\n"])
def test_a_file_that_the_kernel_cannot_run_is_a_load_error(script: Callable[[str], Path], text: str) -> None:
    with pytest.raises(LoadError, match="cannot be executed") as info:
        WorkerProcess.start(script(text), "m")
    assert info.value.stage == "spawn"


def test_an_interpreter_without_numpy_says_so(bare: Path) -> None:
    with pytest.raises(LoadError, match="cannot import numpy.*install numpy in that environment") as info:
        WorkerProcess.start(bare, "m", overlay=overlay.ensure(probe(bare)))
    assert info.value.stage == "handshake"


def test_an_interpreter_without_msgpack_or_overlay_says_so(bare: Path) -> None:
    with pytest.raises(LoadError, match="has no msgpack >= 1.0 and no overlay was given") as info:
        WorkerProcess.start(bare, "m")
    assert info.value.stage == "spawn"


def test_a_wrapper_that_runs_python_as_its_child_is_named_as_the_trouble(
    script: Callable[[str], Path],
) -> None:
    with pytest.raises(LoadError, match="a wrapper that runs Python as a child: give the interpreter itself"):
        WorkerProcess.start(script(f'#!/bin/sh\n{sys.executable} "$@"\nexit $?\n'), "m")


def test_a_wrapper_that_becomes_python_is_as_good_as_python(script: Callable[[str], Path]) -> None:
    WorkerProcess.start(script(f'#!/bin/sh\nexec {sys.executable} "$@"\n'), "m").close(grace=0)


@pytest.mark.parametrize("silent", ["sleep 1000", "while :; do echo no end; done"])
def test_a_program_that_never_says_hello_is_ended_at_the_deadline(
    script: Callable[[str], Path], silent: str
) -> None:
    with pytest.raises(LoadError, match="did not say hello within") as info:
        WorkerProcess.start(
            script(f"#!/bin/sh\necho $$ >&2\n{silent}\n"), "m", deadline=time.monotonic() + 0.3
        )
    assert info.value.stage == "handshake"


def test_a_program_that_a_signal_ends_before_the_handshake_has_died(script: Callable[[str], Path]) -> None:
    with pytest.raises(WorkerDied) as info:
        WorkerProcess.start(script("#!/bin/sh\necho last words >&2\nkill -SEGV $$\n"), "m")
    assert info.value.signal == "SIGSEGV"
    assert info.value.exit_code is None
    assert info.value.stage == "spawn"
    assert info.value.stderr == ("last words",)


@pytest.mark.parametrize(
    "sent", ["os.write(fd, b'\\xff' * 100)", "os.write(fd, b'\\x07\\0\\0\\0\\0\\0\\0\\0\\x81\\xa4type\\xa0')"]
)
def test_a_program_that_speaks_something_else_is_a_load_error(
    script: Callable[[str], Path], sent: str
) -> None:
    text = f"#!{sys.executable}\nimport os, sys, time\nfd = int(sys.argv[sys.argv.index('--control') + 1])\n{sent}\ntime.sleep(1000)\n"
    with pytest.raises(LoadError, match="did not speak opexec's protocol") as info:
        WorkerProcess.start(script(text), "m")
    assert info.value.stage == "handshake"


def test_a_worker_of_another_version_is_refused_with_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opexec.workers.handshake.VERSION", "0.0.1")
    with pytest.raises(
        LoadError,
        match=r"opexec: the caller has '0\.0\.1', the worker '[0-9.]+'. To do: .*start the caller again",
    ):
        WorkerProcess.start(sys.executable, "m")


# Dying


@pytest.mark.parametrize(
    ("end", "exit_code", "name", "how"),
    [
        ("sys.exit(3)", 3, None, "exited with code 3"),
        ("raise ValueError('broken')", 1, None, "exited with code 1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, "SIGKILL", "was killed by SIGKILL"),
        (
            "os.kill(os.getpid(), signal.SIGRTMIN + 5)",
            None,
            f"signal {signal.SIGRTMIN + 5}",
            "was killed by signal",
        ),
    ],
)
def test_a_death_says_how_and_what_was_printed_last(double, end: str, exit_code, name, how: str) -> None:
    worker = double(
        f"control.receive()\nfor n in range(60): print('line', n, file=sys.stderr)\nprint('no newline', end='', file=sys.stderr, flush=True)\n{end}"
    )
    worker.control.send({"type": "go"})
    with pytest.raises(PeerGone):
        worker.receive()
    died = worker.death("load")
    assert (died.pid, died.exit_code, died.signal, died.stage) == (worker.pid, exit_code, name, "load")
    printed = [line for line in died.stderr if line.startswith(("line", "no newline"))]
    assert printed[-1].startswith("no newline")
    assert printed[-2] == "line 59"
    assert how in str(died) and "while loading its model" in str(died) and "line 59" in str(died)
    worker.close(grace=0)
    assert_dead(worker.pid)
    assert str(worker.death("load")) == str(died)


def test_a_kill_from_outside_is_seen_through_the_pidfd(worker: WorkerProcess) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    wait_for_end(worker.pidfd)
    assert not worker.alive
    died = worker.death("idle")
    assert died.signal == "SIGKILL"
    assert "while idle; the kernel counted no out-of-memory kill" in str(died)


def test_what_a_worker_said_before_it_died_is_received_first(double) -> None:
    worker = double("control.send({'type': 'last words'})\nos._exit(0)")
    wait_for_end(worker.pidfd)
    assert worker.receive() == ({"type": "last words"}, [])
    with pytest.raises(PeerGone):
        worker.receive()


def test_a_death_is_seen_though_a_child_holds_the_connection_and_closing_takes_the_child_along(
    double,
) -> None:
    worker = double(
        """
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        program = subprocess.Popen(["sleep", "1000"])
        control.send({"type": "children", "pids": [child, program.pid]})
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    children = pids(worker.receive()[0])
    with pytest.raises(PeerGone):
        worker.receive()
    assert not any(select.select([child], [], [], 0)[0] for child in children)
    assert worker.death("call").signal == "SIGKILL"
    worker.close(grace=0)
    for child in children:
        wait_for_end(child)
        os.close(child)


def keeper_of(worker: int) -> int:
    kept = [
        child.pid
        for child in psutil.Process().children()
        if child.pid != worker and os.getpgid(child.pid) == worker
    ]
    assert len(kept) == 1
    return kept[0]


def test_a_death_is_told_before_the_memory_is_taken_down_and_closing_leaves_nobody(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = threading.Event()
    bury = Restarts._bury
    monkeypatch.setattr(Restarts, "_bury", lambda *arguments: told.wait(60) and bury(*arguments))
    with opexec.load(source("gated"), restart=False) as model:
        worker = model.workers[0].pid
        assert worker is not None
        kept = keeper_of(worker)
        call = in_thread(lambda: model.infer({"x": np.array([-1.0])}))
        gate.wait()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            call.result(60)
        assert psutil.Process(kept).status() == psutil.STATUS_SLEEPING
        told.set()
    assert_dead(worker)
    assert_dead(kept)


def test_a_worker_that_leaves_by_itself_takes_its_keeper_along() -> None:
    with opexec.load(source("echo")) as model:
        worker = model.workers[0].pid
        assert worker is not None
        kept = keeper_of(worker)
    assert_dead(worker)
    assert_dead(kept)


def test_a_worker_that_only_closes_its_connection_is_killed_and_the_death_says_so(double) -> None:
    worker = double("control.close()\ntime.sleep(1000)")
    with pytest.raises(PeerGone):
        worker.receive()
    assert worker.alive
    died = worker.death("call")
    assert "closed its connection, did not exit and was killed by SIGKILL while running a call" in str(died)
    assert "out-of-memory" not in str(died)


def test_receiving_ends_at_the_deadline_and_goes_on_after_it(double) -> None:
    worker = double("control.receive()\ncontrol.send({'type': 'answer'})\ncontrol.receive()")
    with pytest.raises(CallTimeout):
        worker.receive(time.monotonic() - 1)
    with pytest.raises(CallTimeout):
        worker.receive(time.monotonic() + 0.05)
    worker.control.send({"type": "go"})
    assert worker.receive(time.monotonic() + 60) == ({"type": "answer"}, [])


# Ending


def test_a_worker_that_is_asked_leaves_by_itself(double) -> None:
    worker = double(
        """
        message, _ = control.receive()
        assert message == {"type": "bye"}, message
        print("left by itself", flush=True)
        """
    )
    worker.close(grace=60)
    assert worker.tail("stdout") == ("left by itself",)
    assert worker.death("idle").exit_code == 0


@pytest.mark.parametrize("stopped", [False, True])
def test_a_worker_that_does_not_leave_is_killed_with_its_children(double, stopped: bool) -> None:
    worker = double(
        f"""
        program = subprocess.Popen(["sleep", "1000"])
        control.send({{"type": "children", "pids": [program.pid]}})
        if {stopped}:
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1000)
        """
    )
    (child,) = pids(worker.receive()[0])
    assert worker.alive
    worker.close(grace=0.05)
    wait_for_end(child)
    os.close(child)
    assert_dead(worker.pid)


def test_closing_does_not_wait_for_a_worker_that_reads_nothing(double) -> None:
    worker = double("time.sleep(1000)")
    with pytest.raises(TimeoutError):
        worker.control.send({"type": "m", "data": bytes(1 << 20)}, timeout=0.01)
    worker.close(grace=0.01)
    assert_dead(worker.pid)


def test_closing_twice_and_at_once_is_closing() -> None:
    worker = WorkerProcess.start(sys.executable, "m")
    threads = [threading.Thread(target=worker.close, args=(0,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.close()
    worker.kill()
    assert not worker.alive
    with pytest.raises(PeerGone):
        worker.control.send({"type": "m"})


def test_a_forgotten_worker_is_ended() -> None:
    worker = WorkerProcess.start(sys.executable, "m")
    end = os.pidfd_open(worker.pid)
    pid = worker.pid
    del worker
    gc.collect()
    wait_for_end(end)
    os.close(end)
    assert_dead(pid)


def test_a_program_that_ends_leaves_nobody_to_be_reaped() -> None:
    """Told by a process that gets what others leave behind, as the first one of a container does."""
    program = (
        f"import numpy, opexec; m = opexec.load({source('echo')!r}); print(m.infer({{'x': numpy.ones(1)}}))"
    )
    reaper = (
        "import ctypes, psutil, subprocess, sys\n"
        "ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)\n"
        "print('left:', [one.name() for one in psutil.Process().children(recursive=True)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", reaper, program], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.splitlines()[-1:] == ["left: []"], done


def test_a_caller_that_forgets_to_close_ends_its_worker_and_itself() -> None:
    code = "import sys\nfrom opexec.processes.worker import WorkerProcess\nw = WorkerProcess.start(sys.executable, 'm')\nprint(w.pid)"
    finished = subprocess.run(
        [sys.executable, "-Wdefault", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0
    assert finished.stderr == ""
    assert_dead(int(finished.stdout))


def test_a_forked_copy_of_the_caller_leaves_the_worker_alone(worker: WorkerProcess) -> None:
    copy = os.fork()
    if copy == 0:
        try:
            worker.kill()
            worker.close()
            worker._child.forget()  # what happens when the copy's `worker` is garbage
            try:
                worker.death("idle")
            except OpexecError:
                os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(copy, 0)[1] == 0
    assert worker.alive
    worker.control.send({"type": "load"})  # not what a worker expects first
    with pytest.raises(PeerGone):
        while True:
            worker.receive()
    assert worker.death("load").exit_code == 1


@pytest.mark.parametrize("end", ["w.close(0)", "w.death('idle')", "del w"])
def test_a_caller_that_has_its_children_reaped_by_others_ends_its_workers_all_the_same(end: str) -> None:
    code = f"""
import os, select, signal, sys
from opexec.processes.worker import WorkerProcess
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
w = WorkerProcess.start(sys.executable, "m")
end = os.pidfd_open(w.pid)
{end}
assert select.select([end], [], [], 60)[0]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_an_interrupted_start_leaves_no_process(script: Callable[[str], Path], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    silent = script(f"#!/bin/sh\necho $$ >{fifo}\nexec sleep 1000\n")
    ends: list[int] = []

    def interrupt() -> None:
        ends.append(os.pidfd_open(int(fifo.read_text())))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)  # type: ignore[arg-type]

    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            WorkerProcess.start(silent, "m")
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    wait_for_end(ends[0])
    os.close(ends[0])


def test_the_worker_end_of_the_connection_is_the_workers_alone(worker: WorkerProcess) -> None:
    """Else a dead worker's connection would stay open."""
    assert worker.control.fileno() >= 0
    probe_socket = socket.socket(fileno=os.dup(worker.control.fileno()))
    os.kill(worker.pid, signal.SIGKILL)
    wait_for_end(worker.pidfd)
    assert probe_socket.recv(1 << 16) == b""
    probe_socket.close()
