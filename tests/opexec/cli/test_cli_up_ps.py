"""`opexec up` keeps the models of a file for others to call, and `opexec ps` lists what is shared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import opexec
from opexec.sharing import places
from tests.attaching import runtime
from tests.command import opexec_here
from tests.loaded import source

__all__ = ["runtime"]

OPEXEC = [sys.executable, "-m", "opexec"]


class Up:
    """An `opexec up` that runs."""

    def __init__(self, file: Path) -> None:
        self.process = subprocess.Popen([*OPEXEC, "up", str(file)], stderr=subprocess.PIPE, text=True)
        self.said = ""

    def wait_for(self, text: str) -> None:
        """Until it has logged a line with this text."""
        assert self.process.stderr is not None
        while True:
            line = self.process.stderr.readline()
            assert line, f"{text!r} never came; it said:\n{self.said}"
            self.said += line
            if text in line:
                return

    def end(self, number: int) -> int:
        """Send a signal that ends it; returns its exit status."""
        assert self.process.stderr is not None
        self.process.send_signal(number)
        self.said += self.process.stderr.read()
        return self.process.wait(60)

    def close(self) -> None:
        assert self.process.stderr is not None
        self.process.kill()
        self.process.wait()
        self.process.stderr.close()


@pytest.fixture
def up(runtime: Path) -> Iterator[Callable[[Path], Up]]:
    started: list[Up] = []

    def start(file: Path) -> Up:
        started.append(Up(file))
        return started[-1]

    yield start
    for one in started:
        one.close()


def ps(*arguments: str) -> str:
    done = opexec_here("ps", *arguments)
    assert done.status == 0, done.err
    return done.out


def table(name: str, factory: str, rest: str = "") -> str:
    return f"[models.{name}]\nsource = {json.dumps(source(factory))}\n{rest}\n"


def test_up_serves_a_file_follows_it_on_sighup_and_stops_on_sigterm(
    tmp_path: Path, up: Callable[[Path], Up], runtime: Path
):
    file = tmp_path / "models.toml"
    file.write_text(table("stays", "double") + table("changes", "double") + table("goes", "echo"))
    house = up(file)
    house.wait_for("opexec.up: up: ")
    with opexec.attach("stays") as stays, opexec.attach("changes") as changes:
        worker = stays.workers[0].pid
        assert stays.infer({"x": np.ones(1)})["y"] == 2 and changes.infer({"x": np.ones(1)})["y"] == 2
        listed = {one["name"]: one for one in json.loads(ps("--json"))}
        assert list(listed) == ["changes", "goes", "stays"]
        first = listed["stays"]
        assert first["clients"] == 1 and first["calls"] == 1 and first["memory"] > 1 << 20
        assert (first["state"], first["pid"], first["owner"]) == ("ready", worker, house.process.pid)
        lines = subprocess.check_output([*OPEXEC, "ps"], text=True).splitlines()
        assert lines[0].split()[:2] == ["NAME", "STATE"]
        assert [line.split()[0] for line in lines[1:]] == ["changes", "goes", "stays"]

        file.write_text(table("stays", "double") + table("changes", "echo") + table("comes", "echo"))
        house.process.send_signal(signal.SIGHUP)
        house.wait_for("opexec.up: up: ")
        assert places.names() == ["changes", "comes", "stays"]
        assert stays.infer({"x": np.ones(1)})["y"] == 2 and stays.workers[0].pid == worker
        try:
            answer = changes.infer({"x": np.ones(1)}, timeout=60)
        except opexec.WorkerDied:  # it was on its way to the former model's worker
            answer = changes.infer({"x": np.ones(1)}, timeout=60)
        assert list(answer) == ["x"]

        file.write_text("[models.stays]\nsauce = 1\n")
        house.process.send_signal(signal.SIGHUP)
        house.wait_for(f"{file}: models.stays.sauce: ")
        assert stays.infer({"x": np.ones(1)})["y"] == 2
    assert house.end(signal.SIGTERM) == 0, house.said
    assert "Traceback" not in house.said and places.names() == []
    assert json.loads(ps("--json")) == []


def test_up_ends_where_a_model_cannot_be_loaded(tmp_path: Path, up: Callable[[Path], Up]):
    file = tmp_path / "models.toml"
    file.write_text(table("good", "double") + table("bad", "raising_factory"))
    house = up(file)
    assert house.process.stderr is not None
    said = house.process.stderr.read()
    assert house.process.wait(60) == 1 and "1 of 2 models" in said and "'bad'" in said
    assert places.names() == []


def test_up_can_be_stopped_while_it_loads(
    tmp_path: Path, up: Callable[[Path], Up], monkeypatch: pytest.MonkeyPatch
):
    from tests.models import Gate

    monkeypatch.setenv("OPEXEC_TEST_GATE", str(tmp_path))
    gate = Gate(tmp_path)
    file = tmp_path / "models.toml"
    file.write_text(table("slow", "gated_while_loading"))
    house = up(file)
    gate.wait()
    assert house.end(signal.SIGINT) == 0, house.said
    assert "Traceback" not in house.said
    gate.close()


def test_ps_passes_over_what_a_dead_owner_left(tmp_path: Path, up: Callable[[Path], Up], runtime: Path):
    file = tmp_path / "models.toml"
    file.write_text(table("left", "double"))
    house = up(file)
    house.wait_for("opexec.up: up: ")
    house.process.kill()
    house.process.wait()
    assert places.names() == ["left"]
    assert ps() == ""
    again = up(file)
    again.wait_for("opexec.up: up: left")
    assert [one["name"] for one in json.loads(ps("--json"))] == ["left"]


def test_ps_tells_the_state_of_every_replica_the_worst_first(runtime: Path):
    with opexec.load(source("double"), name="two", replicas=2, restart=False) as model, model.share():
        dead = model.workers[1]  # behind one that is well
        assert dead.pid is not None
        os.kill(dead.pid, signal.SIGKILL)
        while "SIGKILL" not in model.workers[1].reason:
            time.sleep(0.001)
        (told,) = json.loads(ps("--json"))
        assert [(one["pid"], one["state"]) for one in told["workers"]] == [
            (model.workers[0].pid, "ready"),
            (dead.pid, "stopped"),
        ]
        assert told["state"] == "stopped" and "SIGKILL" in told["reason"]
        assert told["since"] == model.workers[1].since
        head, row = ps().splitlines()
        assert "1 stopped, 1 ready" in row and row.index("1 stopped") == head.index("STATE")
        with opexec.attach("two") as attached:
            assert attached.workers[0].pid == model.workers[0].pid


def test_up_says_what_is_wrong_with_its_file(tmp_path: Path):
    ended = subprocess.run(
        [*OPEXEC, "up", str(tmp_path / "absent.toml")], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1 and "absent.toml: cannot be read" in ended.stderr
