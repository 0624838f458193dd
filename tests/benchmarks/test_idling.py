"""A call after idling beside the least that it could be: that one is a call, and the table says what each takes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.floors.asleep import Asleep
from benchmarks.results import pictures
from benchmarks.scenarios import idling
from benchmarks.scenarios.result import Settings


@pytest.mark.parametrize("interpreter", [None, Path(sys.executable)])
def test_the_least_call_gives_its_input_back_in_memory_that_both_sides_map(interpreter):
    floor = Asleep(interpreter)
    try:
        call = floor.call()
        for number in range(3):
            x = np.full(16, number, np.float32)
            y = call({"x": x})
            assert np.array_equal(x, y) and not np.shares_memory(x, y)
        with pytest.raises(ValueError, match="16 float32"):
            call({"x": np.zeros(16)})
        assert np.array_equal(call({"x": x}), x)
        pid = floor.pid
        assert pid != os.getpid() and os.path.exists(f"/proc/{pid}")
    finally:
        floor.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_an_interpreter_that_does_not_run_the_partner_is_no_partner():
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Asleep(Path("/bin/false"))


def test_the_table_and_its_picture(tmp_path):
    found = idling.measure(Settings(2, 0.02, True))
    assert len(found.rows) == 6 and all(len(row) == len(found.heads) for row in found.rows)
    assert {name for name, *_ in found.rows if name.startswith("opexec")} <= set(found.rounds)
    for name, *_ in found.rows:
        assert len(found.rounds[name]) == 2 and all(nanoseconds > 0 for nanoseconds in found.rounds[name])
    units = {name: (over_e, over_least) for name, _, over_e, over_least, _ in found.rows}
    assert [name for name, (over_e, _) in units.items() if over_e == "1 [1 .. 1]"] == [found.rows[0][0]]
    assert [name for name, (_, least) in units.items() if least == "1 [1 .. 1]"] == [found.rows[3][0]]
    picture = pictures.bars(found, tmp_path / "idling.svg")
    assert picture is not None and all(row[0] in picture.read_text() for row in found.rows)
