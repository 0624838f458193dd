"""The page of results follows from the stored runs alone, and a scenario stores what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.invocation import spelled
from benchmarks.ratios import Spread
from benchmarks.results import page
from benchmarks.scenarios.command import SCENARIOS
from benchmarks.scenarios.result import AIM_MET, MUST_MET, NOT_MET, Bar, Found, Verdict

ROOT = Path(__file__).resolve().parents[2]
SPREAD = Spread.of([1.0, 2.0, 4.0])
FOUND = Found(
    title="Two at once",
    question="How many?",
    heads=("where", "calls/s"),
    rows=[("here | there", "2 [1.5 .. 3]")],
    verdicts=[Verdict.at_least("twice as many", SPREAD, 1.9, 1.97)],
    bars=[Bar.of("here", "opexec", SPREAD), Bar.of("there", "peer", SPREAD)],
    axis="calls a second",
    log=True,
    notes=["A note."],
    rounds={"ratio": [1.0, 2.0, 4.0]},
)


def stored(quick):
    return {
        "command": "python -m benchmarks gil",
        "date": "2026-01-01 00:00 UTC",
        "quick": quick,
        "round_count": 9,
        "machine": {"cpu": "A", "packages": {"numpy": "2.0"}},
        "found": FOUND.to_json(),
    }


@pytest.mark.parametrize("quick", [False, True])
def test_the_page_is_made_of_what_is_stored_and_the_same_each_time(tmp_path, quick):
    (tmp_path / "gil.json").write_text(json.dumps(stored(quick)))
    written = page.written(tmp_path, tmp_path.parent, "python -m benchmarks results")
    assert "- packages: numpy 2.0" in written
    assert "| here \\| there | 2 [1.5 .. 3] |" in written
    verdict = f"({AIM_MET})" if quick else AIM_MET
    assert f"| twice as many | ≥ 1.9 x | ≥ 1.97 x | 2 [1.5 .. 3] x | {verdict} |" in written
    assert ("decides nothing" in written) == quick
    assert f"]({tmp_path.name}/gil.svg)" in written
    picture = (tmp_path / "gil.svg").read_bytes()
    assert len(picture) > 5_000
    assert page.written(tmp_path, tmp_path.parent, "python -m benchmarks results") == written
    assert (tmp_path / "gil.svg").read_bytes() == picture


def test_an_empty_store_says_so(tmp_path):
    assert "Nothing has been measured yet" in page.written(tmp_path, tmp_path, "python -m benchmarks results")


def test_what_a_scenario_found_comes_back_from_json():
    back = Found.from_json(json.loads(json.dumps(FOUND.to_json())))
    assert (back.verdicts, back.bars, back.rounds) == (FOUND.verdicts, FOUND.bars, FOUND.rounds)


@pytest.mark.parametrize("median, expected", [(2, AIM_MET), (1.95, MUST_MET), (1.8, NOT_MET)])
def test_better_when_larger(median, expected):
    assert Verdict.at_least("", Spread.of([median]), 1.9, 1.97).verdict == expected


@pytest.mark.parametrize("median, expected", [(1, AIM_MET), (5, MUST_MET), (11, NOT_MET)])
def test_better_when_smaller(median, expected):
    assert Verdict.at_most("", Spread.of([median]), 10, 2, "%").verdict == expected


def test_a_command_is_written_down_without_where_its_output_went():
    given = ["--quick", "--output", "/somewhere", "--output=/else", "--rounds", "3"]
    assert spelled("gil", given) == "python -m benchmarks gil --quick --rounds 3"


@pytest.mark.slow
def test_a_scenario_end_to_end(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "waiting", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "waiting.json").read_text())
    assert data["command"] == "python -m benchmarks waiting --quick"
    assert len(data["found"]["rounds"]["alone"]) == data["round_count"] == 3
    assert len(data["found"]["verdicts"]) == 1


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_says_what_it_is(name):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--quick" in done.stdout
