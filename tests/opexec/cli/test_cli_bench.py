"""`opexec bench`: what it prints and writes, and what it says of a command line that cannot be."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import click
import numpy as np
import pytest

from opexec.bench import read
from opexec.cli.commands.bench import Counts
from tests import slow_models
from tests.command import on_terminal, opexec, opexec_here
from tests.scales import affine_onnx, factory

SHORT = ("--rounds", "5", "--seconds", "0.01", "--idle", "0.001", "--warm-up", "0.1")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files that one run can write."""
    folder = tmp_path_factory.mktemp("bench")
    net = affine_onnx(folder / "net.onnx", 2, 1, ("batch", "width"))
    files = [f"--{kind}={folder / name}" for kind, name in FILES.items()]
    done = opexec("bench", net, "--in-process", "--batch", "1,8", "--size", "width=3", *SHORT, *files)
    assert done.status == 0, done.err
    (folder / "printed.txt").write_text(done.out)
    (folder / "said.txt").write_text(done.err)
    return folder


FILES = {"save": "r.json", "csv": "r.csv", "png": "r.png", "html": "r.html", "trace": "t.json"}


def test_every_combination_is_measured_in_one_run(measured: Path) -> None:
    report = read(measured / "r.json")
    labels = ["in process, batch 1", "isolated, batch 1", "in process, batch 8", "isolated, batch 8"]
    assert [result.label for result in report.results] == labels
    assert [result.inputs["x"] for result in report.results][1:3] == ["float32[1, 3]", "float32[8, 3]"]
    printed = (measured / "printed.txt").read_text()
    assert all(label in printed for label in labels) and "step of a call" in printed
    assert "closed loop, 5 rounds" in (measured / "said.txt").read_text()


def test_all_that_it_writes_is_there(measured: Path) -> None:
    assert all(str(measured / name) in (measured / "said.txt").read_text() for name in FILES.values())
    assert len(list(csv.reader((measured / "r.csv").open()))) == 5
    assert (measured / "r.png").read_bytes()[:4] == b"\x89PNG"
    assert (measured / "r.html").read_text().startswith("<!doctype html>")
    assert json.loads((measured / "t.json").read_text())["traceEvents"]


def test_slower_than_before_fails_if_asked(tmp_path: Path) -> None:
    def ran(seconds: str, *more: str) -> tuple[int, str, str]:
        source = f"{slow_models.__file__}:sleeping"
        arguments = ("bench", source, "--shape", "x=float32[2]", *SHORT, *more)
        done = opexec(*arguments, OPEXEC_TEST_SLEEP=seconds)
        return done.status, done.out, done.err

    old = str(tmp_path / "old.json")
    assert ran("0.001", "--save", old)[0] == 0
    status, out, err = ran("0.02", "--compare", old, "--fail-if-slower", "1.5")
    assert status == 1 and "slower, " in out
    assert "times as long as before; 1.5 times is allowed" in err


def test_json_has_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(3, dtype=np.float32))
    sources = (factory("plus_one"), factory("raising"))
    done = opexec("bench", *sources, "--inputs", tmp_path / "x.npz", "--rate", "200", *SHORT, "--json")
    told = json.loads(done.out)
    fine, broken = told["results"]
    assert done.status == 1 and "was left out: " in done.err and "broken on purpose" in broken["error"]
    assert fine["latency"]["calls"] == 5 * 2 and fine["inputs"] == {"x": "float32[3]"}
    assert told["settings"]["rate"] == 200 and told["machine"]["cpu"]


def test_it_fits_a_terminal() -> None:
    lines = on_terminal(60, "bench", factory("plus_one"), "--input", "x=[1,2]", *SHORT)
    assert any("p50" in line and "calls/s" in line for line in lines)
    tables = [line for line in lines if not line.startswith("opexec: ")]
    assert max(map(len, tables)) <= 60


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--callers", "0"), "different whole numbers"),
        (("--batch", "1,1"), "different whole numbers"),
        (("--size", "width"), "expected NAME=N"),
        (("--shape", "x=float"), "expected sizes"),
        (("--fail-if-slower", "1.1"), "needs --compare"),
        (("--env", "3:old"), "is for model 3"),
        (("--rate", "0"), "--rate"),
    ],
)
def test_what_cannot_be_is_told_at_once(arguments: tuple[str, ...], words: str) -> None:
    from click.testing import CliRunner

    from opexec.cli.commands.bench import command

    done = CliRunner().invoke(command, ["net.onnx", *arguments])
    assert done.exit_code == 2 and words in done.output


def test_a_report_to_compare_with_is_looked_at_first(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    done = opexec_here("bench", "absent.onnx", "--compare", tmp_path / "old.json")
    assert done.status == 1 and "is no report" in done.err


def test_counts() -> None:
    assert Counts().convert("1,8,32", None, None) == (1, 8, 32)
    with pytest.raises(click.BadParameter):
        Counts().convert("a", None, None)
