"""Threads that call at once, each its own worker, and one that submits to all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.results import pictures
from benchmarks.scenarios import threads
from benchmarks.scenarios.result import Settings


def test_the_table_and_its_picture(tmp_path: Path) -> None:
    found = threads.measure(Settings(2, 0.02, True))
    assert [row[0] for row in found.rows] == [threads.INFER, threads.BLOCK, threads.SUBMIT, threads.PIPE]
    assert all(len(row) == len(found.heads) for row in found.rows)
    for side in (threads.INFER, threads.BLOCK, threads.SUBMIT, threads.PIPE):
        for count in threads.THREADS:
            rates = found.rounds[f"{side}, {count}"]
            assert len(rates) == 2 and all(rate > 0 for rate in rates)
    picture = pictures.bars(found, tmp_path / "threads.svg")
    assert picture is not None and all(bar.label in picture.read_text() for bar in found.bars)


def test_one_thread_submits_to_all() -> None:
    submitted: list[str] = []

    class Stand:
        def __init__(self, name: str) -> None:
            self.name = name

        def submit(self, inputs: dict[str, np.ndarray]) -> Stand:
            submitted.append(self.name)
            return self

        def result(self) -> None:
            pass

    rate = threads._submitted([Stand("a"), Stand("b")], {}, 0.01)  # type: ignore[list-item]
    assert submitted.count("a") == submitted.count("b") > threads._UNDER_WAY
    assert rate > 0
