"""Measures opexec against the floors of this machine, the in-process call and its peers, side by side in one run.

    python -m benchmarks latency

How the rooms lie: a *contender* (`contender.py`) is one way to get a model called: a floor (`floors/`), a call in
process or through opexec (`calls/`), or a peer (`peers/`). Each runs in a process of its own (`driver.py`), held by the
run through `driver_process.py`. `grid.py` says what is measured, `rounds.py` in which order, `goals.py` what it is
judged by; `report.py` and `plot.py` write it down.

Other commands: `scenarios/` (situations, a command each), `frameworks/` (what isolating each framework adds), `batching.py`, `sharing.py`,
`supervision.py`, `soak/` (callers for a long time, while workers are killed), and `results/`, which runs `latency` and the scenarios and writes
RESULTS.md. `python -m benchmarks.demo` is what `make demo` runs.
"""
