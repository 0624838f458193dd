"""The comparison of frameworks measures what it says, notices wrong answers, and judges by the stated bounds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.driver_process import ContenderFailed
from benchmarks.frameworks import command, model_functions, table
from benchmarks.frameworks.comparing import (
    TURNS,
    Comparison,
    Floors,
    Round,
    Settings,
    compare,
    settings,
    turns,
)
from benchmarks.frameworks.environments import FRAMEWORKS, Framework
from benchmarks.frameworks.sides import InProcessSide, IsolatedSide
from benchmarks.goals import AIM_MET, MUST_MET, NOT_MET
from benchmarks.sampling import Plan
from opexec import Environment

FACTS = {
    "framework": "onnxruntime",
    "version": "1.4.0",
    "python": "3.7.16",
    "numpy": "1.21.6",
    "copied in of empty": 0,
    "copied out": 4096,
}


def comparison(in_process: int, *overheads: int) -> Comparison:
    rounds = [Round(in_process, in_process + overhead, 100_000, 20_000) for overhead in overheads]
    return Comparison("onnxruntime", "quick", FACTS, rounds)


@pytest.mark.parametrize(
    "in_process, overhead, expected",
    [
        (1_000_000, 110_000, AIM_MET),  # of 20 + 2 * 100 us
        (1_000_000, 220_000, MUST_MET),
        (1_000_000, 221_000, NOT_MET),
        (49_000, 25_000, AIM_MET),  # of 20 + 30 us
        (49_000, 50_000, MUST_MET),
        (49_000, 51_000, NOT_MET),
        (50_000, 51_000, AIM_MET),  # not quick any more
    ],
)
def test_the_bounds(in_process: int, overhead: int, expected: str) -> None:
    assert table.verdict(comparison(in_process, overhead).ratio) == expected


def test_the_figure_is_the_median_over_rounds_of_each_rounds_own_ratio() -> None:
    found = comparison(1_000_000, 22_000, 220_000, 2_200_000)
    assert found.ratio.median == pytest.approx(1) and found.overhead.median == 220_000
    assert found.ratio.rounds == 3


def test_rounds_that_differ_by_more_than_the_bound_give_no_verdict() -> None:
    # The bound is 220 us; the middle half of the rounds is 230 us wide, then 220.
    for median in (50_000, 400_000):
        assert table.verdict(comparison(1_000_000, median - 115_000, median, median + 115_000 * 3).ratio) == (
            table.NO_VERDICT
        )
    assert table.verdict(comparison(1_000_000, 0, 110_000, 440_000).ratio) == AIM_MET


def test_neither_side_comes_earlier_in_a_round() -> None:
    for seed in range(5):
        order = turns(random.Random(seed))
        places = {side: [place for place, one in enumerate(order) if one == side] for side in set(order)}
        assert {len(found) for found in places.values()} == {TURNS}
        assert sum(places["opexec"]) == sum(places["in_process"])
    assert len({turns(random.Random(seed))[0] for seed in range(5)}) == 2


def run(rounds: int, failures: dict[str, str]) -> table.Run:
    machine = {"cpu": "a processor", "cores usable": 2, "virtual": True, "load average before": 0.5}
    return table.Run(
        "python -m benchmarks frameworks",
        "today",
        machine,
        settings(rounds=rounds),
        [comparison(40_000, *[-5_000] * rounds)],
        failures,
    )


def test_what_is_written_down() -> None:
    text = table.to_markdown(run(9, {"jax": "no wheel"}))
    assert (
        "| ONNX | onnxruntime 1.4.0 | 3.7.16 | quick | 0 B | 4,096 B | 40.0 | -5.00 [-5.00 .. -5.00] |"
        in text
    )
    assert "M + 30 µs" in text and AIM_MET in text and "jax was not measured" in text and "no wheel" in text
    assert "decides nothing" not in text and "decides nothing" in table.to_markdown(run(8, {}))
    written = json.loads(json.dumps(table.to_json(run(9, {}))))
    assert written["comparisons"][0]["rounds"][0]["copy"] == 20_000


def test_the_page_is_changed_between_its_marks_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n", "utf-8")
    for text in ("new µs\n", "newer\n"):
        table.update(page, text)
        assert page.read_text("utf-8") == f"before\n\n{table.BEGIN}\n\n{text}\n{table.END}\n\nafter\n"
    page.write_text("no marks", "utf-8")
    with pytest.raises(ValueError, match="expected the lines"):
        table.update(page, "text")


def test_the_docs_have_the_marks() -> None:
    text = command.PAGE.read_text("utf-8")
    assert text.count(table.BEGIN) == text.count(table.END) == 1


def test_the_models_are_what_they_are_said_to_be() -> None:
    x = model_functions.image(model_functions.INPUT_SHAPE)
    assert x.nbytes == 602_112 and x.dtype == np.float32
    for factory in (model_functions.quick, model_functions.network):
        y = factory()(x)
        assert y.shape == (1, 1024) and y.dtype == np.float32 and y.nbytes == 4096


def model(**changes: Any) -> dict[str, Any]:
    source = f"{Path(model_functions.__file__).resolve()}:quick"
    shape = list(model_functions.INPUT_SHAPE)
    return {"platform": "python", "source": source, "options": {}, "input": "x", "shape": shape, **changes}


PLAN = Plan(0, warm_ns=0, least=5, most=5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_both_sides_answer_alike_and_count_what_they_copy(tmp_path: Path) -> None:
    interpreter = Environment("3.7", ["numpy"]).resolve()
    here, there = InProcessSide(interpreter, {}, 1), IsolatedSide(interpreter, {}, 1)
    answer = tmp_path / "answer.npy"
    try:
        facts = here.load("quick", model(), answer)
        assert facts["framework"] == "python" and facts["python"].startswith("3.7.")
        counted = there.load("quick", model(), answer)
        assert counted == {
            "input": 602_112,
            "output": 4096,
            "copied in of numpy": 602_112,
            "copied in of empty": 0,
            "copied out": 4096,
        }
        for side in (here, there):
            samples = side.time("quick", PLAN)
            assert len(samples) == 5 and (samples > 0).all()
        np.save(answer, np.load(answer) + 1)
        with pytest.raises(ContenderFailed, match="other numbers than in process"):
            there.load("wrong", model(), answer)
        with pytest.raises(ContenderFailed, match="AttributeError"):
            here.load("missing", model(source=model()["source"] + "_"), answer)
    finally:
        there.end()
        here.end()
    assert not there.descendants() and not here.descendants()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_framework_is_compared(tmp_path: Path) -> None:
    quick = Settings(2, PLAN, PLAN, PLAN)
    steps: list[str] = []
    with Floors() as floors:
        found = compare("python-3.7", FRAMEWORKS["python-3.7"], floors, quick, steps.append)
        broken = Framework("broken", Environment("3.7", ["numpy"]), "no_such_writer")
        with pytest.raises(Exception, match="no_such_writer"):
            compare("broken", broken, floors, quick, steps.append)
    assert [one.model for one in found] == ["quick", "network"]
    assert all(len(one.rounds) == 2 and one.ratio.rounds == 2 for one in found)
    assert all(
        one.copy > 0 and one.eventfd_idle > 0 and one.in_process > 0 for each in found for one in each.rounds
    )
    assert "python-3.7: network, round 2 of 2" in steps
