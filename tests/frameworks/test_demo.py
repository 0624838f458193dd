"""The demo's answers are right, and it fails when they differ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo import __main__ as demo
from benchmarks.demo import reading

ROOT = Path(__file__).parents[2]
WRITTEN = "One program, two Pythons."


def test_the_picture_is_what_the_model_takes() -> None:
    pixels = reading.pixels()
    assert pixels.dtype == np.float32 and pixels.shape[:2] == (3, 48)
    assert -1 <= pixels.min() < -0.5 and 0.5 < pixels.max() <= 1


def test_repetitions_and_blanks_are_left_out() -> None:
    best = [0, 1, 1, 0, 1, 2, 2, 2, 0, 3, 3, 0]
    assert reading.text(np.eye(4)[best][None], ["", "l", "o", " "]) == "llo"
    assert reading.text(np.eye(4)[[0, 0]][None], ["", "l", "o", " "]) == ""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_reads_the_picture_three_times() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--rounds", "3"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert " ".join(finished.stdout.split()).count("One program") == 3, finished.stdout
    assert "The answers agree" in finished.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_fails_if_the_answers_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []

    def text(*arguments: object) -> str:
        answers.append(read(*arguments))  # type: ignore[arg-type]
        return answers[-1] + "!" * (len(answers) == 2)

    read = reading.text
    monkeypatch.setattr(reading, "text", text)
    assert demo.run(1) == 1
    assert answers == [WRITTEN] * 3
    assert "The answers differ" in capsys.readouterr().out
