"""The soak, shortened, and that it sees what it is there to see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.soak.tally import Tally

REPOSITORY = Path(__file__).parents[2]


def test_the_promises_hold_for_a_while() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "soak", "--seconds", "16", "--round-seconds", "5"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "promises broken: 0" in done.stdout and "SIG" in done.stdout and "right" in done.stdout, (
        done.stdout
    )


LEAVE_THINGS = """
import os, subprocess, threading
from benchmarks.soak.holdings import Holdings

before = Holdings.now()
assert Holdings.now().beyond(before) == []
end = threading.Event()
thread = threading.Thread(target=end.wait, name="left")
thread.start()
read, write = os.pipe()
child = subprocess.Popen(["sleep", "1000"])
try:
    found = Holdings.now().beyond(before)
finally:
    end.set()
    thread.join()
    os.close(read)
    os.close(write)
    child.kill()
    child.wait()
assert [line.partition(":")[0] for line in found] == ["descriptors", "threads", "child processes"], found
assert Holdings.now().beyond(before) == [], Holdings.now().beyond(before)
"""


def test_what_stays_behind_is_seen() -> None:
    """In a process of its own: what other tests have used may go in the midst of it."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_THINGS],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_tally_tells_another_process_all_it_has() -> None:
    tally = Tally()
    tally.add("infer", "right", 0.5)
    tally.complain("something")
    told = Tally.from_json(tally.to_json())
    told.merge(tally)
    assert (told.calls, told.outcomes, told.overran, told.broken) == ({"infer": 2}, {"right": 2}, 0.5, 2)
    assert told.complaints == ["something"] * 2
