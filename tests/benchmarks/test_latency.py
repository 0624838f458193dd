"""The command itself, end to end, with real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def latency(output, *arguments):
    command = [sys.executable, "-m", "benchmarks", "latency", "--output", str(output), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def case(data, name):
    (found,) = [
        c for c in data["cases"] if f"{c['contender']}/{c['model']}/{c['nbytes']}/{c['mode']}" == name
    ]
    return found


def test_floors_and_peers(tmp_path):
    names = [
        "plain/echo/64/busy",
        "pipe-shm/echo/64/busy",
        "pipe-shm/echo/64/idle",
        "queue/hundred/20000/busy",
    ]
    done = latency(tmp_path, "--quick", "--rounds", "2", "--cases", *names)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "results.md")
    data = json.loads((tmp_path / "results.json").read_text())
    assert len(data["cases"]) == len(names)
    for name in names:
        found = case(data, name)
        assert {round["round"] for round in found["rounds"]} == {0, 1}
        assert {"S", "F", "E", "M"} <= found["ratios"].keys()
        assert found["percentiles_ns"]["p50"] > 0
    assert {figure["contender"] for figure in data["idle"]} == {"pipe-shm", "queue"}
    assert "decides nothing" in (tmp_path / "results.md").read_text()
    assert (tmp_path / "results.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_opexec_against_a_worker_of_another_version(tmp_path):
    names = [
        "in-process/echo/64/busy",
        "opexec/echo/64/busy",
        "opexec/echo/64/idle",
        "opexec-empty/tiny/4096/busy",
        "opexec-slice/tiny/4096/busy",
        "opexec/hundred/20000/busy",
        "opexec-load/echo/64/start",
    ]
    done = latency(tmp_path, "--quick", "--rounds", "1", "--cases", *names)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "results.json").read_text())
    assert {f"{c['contender']}/{c['model']}/{c['nbytes']}/{c['mode']}" for c in data["cases"]} == set(names)
    assert case(data, "opexec/echo/64/busy")["ratios"].keys() == {"S", "F", "E", "M", "R"}
    assert case(data, "opexec-load/echo/64/start")["ratios"].keys() == {"B"}
    worker = data["contenders"]["opexec"]["facts"]["worker Python"]
    assert worker.rpartition(".")[0] != ".".join(map(str, sys.version_info[:2]))
    measured = {v["title"] for v in data["verdicts"] if v["verdict"] != "not measured"}
    assert {"64 B in and out, busy caller", "64 B after 5 ms idle", "100 float32 inputs of 10x5"} <= measured
    assert any(title.startswith("worker idle") for title in measured)
    assert "worker ready after `load`" in measured


def test_a_pattern_that_matches_nothing_is_said(tmp_path):
    done = latency(tmp_path, "--cases", "nobody/*")
    assert done.returncode == 2
    assert "nobody/*" in done.stderr and "contender/model/bytes/mode" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_unknown_command_is_said():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "latency" in done.stderr
