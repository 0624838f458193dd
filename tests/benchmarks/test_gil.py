"""Two models at once beside what two cores are worth: processes that compute for themselves, counted by themselves."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.floors.computing import Computing
from benchmarks.results import pictures
from benchmarks.scenarios import gil
from benchmarks.scenarios.result import Settings


def test_computing_processes_tell_how_often_they_computed():
    pids = os.memfd_create("pids")

    def compute():
        os.write(pids, os.getpid().to_bytes(8, "little"))
        time.sleep(0.01)

    computing = Computing(2, compute)
    try:
        rate = computing.rate(0.05)
        seen = os.pread(pids, 1 << 16, 0)
        assert len({seen[at : at + 8] for at in range(0, len(seen), 8)}) == 2
        assert 0 < rate <= 200, "each sleeps for 10 ms a time"
        before = len(seen)
        computing.rate(0.05)
        assert len(os.pread(pids, 1 << 16, 0)) > before, "it can be asked again"
    finally:
        computing.close()
        os.close(pids)
    for at in range(0, 16, 8):
        assert not os.path.exists(f"/proc/{int.from_bytes(seen[at : at + 8], 'little')}")


def test_a_computing_process_that_ends_is_no_figure(capfd):
    def compute():
        raise ValueError("it cannot compute")

    computing = Computing(1, compute)
    try:
        with pytest.raises(RuntimeError, match="ended instead of telling"):
            computing.rate(0.01)
    finally:
        computing.close()
    assert "it cannot compute" in capfd.readouterr().err


def test_the_table_and_its_picture(tmp_path):
    found = gil.measure(Settings(2, 0.05, True))
    assert [row[0] for row in found.rows] == [
        gil.IN_PROCESS,
        gil.WORKERS,
        gil.ALONE,
        gil.BARE,
        gil.BARE_ALONE,
    ]
    for name, *_ in found.rows:
        assert len(found.rounds[name]) == 2 and all(rate > 0 for rate in found.rounds[name])
    assert len(found.notes) == 1 and "second core" in found.notes[0]
    picture = pictures.bars(found, tmp_path / "gil.svg")
    assert picture is not None and all(row[0] in picture.read_text() for row in found.rows)
