"""RESULTS.md, written of the JSON that the benchmarks stored, and of nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contender import REGISTRY
from benchmarks.grid import BUSY, IDLE, IMAGE_NBYTES, MINIMUM_ROUNDS, SMALLEST
from benchmarks.report import table, us
from benchmarks.results import pictures
from benchmarks.scenarios.command import SCENARIOS
from benchmarks.scenarios.result import Found
from benchmarks.workloads import HUNDRED_NBYTES, Workload

_HEADS = ("case", "must", "aim", "measured", "verdict")
_COLUMNS = (
    ("64 B in and out", SMALLEST, BUSY),
    ("64 B after 5 ms idle", SMALLEST, IDLE),
    ("6.9 MB in", Workload("tiny", IMAGE_NBYTES), BUSY),
    ("6.9 MB in and out", Workload("echo", IMAGE_NBYTES), BUSY),
    ("100 inputs of 10x5", Workload("hundred", HUNDRED_NBYTES), BUSY),
)


def written(store: Path, beside: Path, command: str) -> str:
    """The page; pictures are written into `store`, and linked from a page in the folder `beside`."""
    latency = _read(store / "latency" / "results.json")
    scenarios = {name: data for name in SCENARIOS if (data := _read(store / f"{name}.json"))}
    parts = [
        "# Results",
        f"Written by `{command}` of the runs stored in [results/](results), never by hand. Figures are medians over rounds, in brackets the "
        "middle half of the rounds; [docs/performance.md](../docs/performance.md) says what S, F, E, M and R are and how it is measured.",
        _machine(latency, scenarios),
        "## Goals",
        _goals(latency, scenarios),
    ]
    if latency:
        parts += _latency(latency, store, beside)
    for name, data in scenarios.items():
        parts += _scenario(name, data, store, beside)
    return "\n\n".join(part for part in parts if part) + "\n"


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return data


def _machine(latency: dict[str, Any] | None, scenarios: Mapping[str, dict[str, Any]]) -> str:
    runs = [*([latency] if latency else []), *scenarios.values()]
    if not runs:
        return "Nothing has been measured yet."
    lines = []
    for name, value in runs[0]["machine"].items():
        shown = (
            ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
        )
        lines.append(f"- {name}: {shown}")
    return "\n".join(lines)


def _goals(latency: dict[str, Any] | None, scenarios: Mapping[str, dict[str, Any]]) -> str:
    rows: list[Sequence[str]] = []
    undecided = False
    for data, verdicts in [
        *([(latency, latency["verdicts"])] if latency else []),
        *((data, data["found"]["verdicts"]) for data in scenarios.values()),
    ]:
        short = data["quick"] if "quick" in data else data["rounds"] < MINIMUM_ROUNDS
        undecided |= bool(short and verdicts)
        for one in verdicts:
            grade = f"({one['verdict']})" if short else one["verdict"]
            rows.append([one["title"], one["must"], one["aim"], one["measured"], grade])
    text = table(_HEADS, rows)
    return f"{text}\n\nVerdicts in brackets are of runs too short to decide anything." if undecided else text


def _latency(data: dict[str, Any], store: Path, beside: Path) -> list[str]:
    cases = {(each["contender"], each["model"], each["nbytes"], each["mode"]): each for each in data["cases"]}
    rows = []
    for name, entry in REGISTRY.items():
        cells = []
        for _, workload, mode in _COLUMNS:
            found = cases.get((name, workload.model, workload.nbytes, mode))
            cells.append(_p50_p99(found["percentiles_ns"]) if found else "")
        if any(cells):
            rows.append([entry.title + (" (burns a core)" if entry.burns_core else ""), *cells])
    lines = []
    for about in data["contenders"].values():
        why = about["unavailable"] or about["failure"]
        if why:
            lines.append(f"- {about['title']} was not measured: {why.splitlines()[0]}")
    versions = [
        f"{about['title']}: " + ", ".join(f"{key} {value}" for key, value in about["facts"].items())
        for about in data["contenders"].values()
        if about["facts"]
    ]
    picture = pictures.peers(data, store / "peers.svg")
    return [
        "## Latency",
        f"`{data['command']}`, {data['date']}, {data['rounds']} rounds; peers that take seconds to open in the first few. All cases and "
        f"sizes: [{_link(store / 'latency' / 'results.md', beside)}]({_link(store / 'latency' / 'results.md', beside)}).",
        f"![p50 of a 64 B call]({_link(picture, beside)})" if picture else "",
        "p50 (p99) in µs over the calls of all rounds.",
        table(["", *(title for title, _, _ in _COLUMNS)], rows),
        "\n".join(lines),
        "Versions: " + "; ".join(versions) + "." if versions else "",
        f"![p50 and p99 by size]({_link(store / 'latency' / 'results.png', beside)})",
    ]


def _scenario(name: str, data: dict[str, Any], store: Path, beside: Path) -> list[str]:
    found = Found.from_json(data["found"])
    picture = pictures.bars(found, store / f"{name}.svg")
    return [
        f"## {found.title}",
        f"{found.question}",
        f"`{data['command']}`, {data['date']}, {data['round_count']} rounds."
        + (" A quick run, which decides nothing." if data["quick"] else ""),
        table(found.heads, found.rows),
        _sentences(found.notes),
        f"![{found.axis}]({_link(picture, beside)})" if picture else "",
    ]


def _sentences(notes: Iterable[str]) -> str:
    return "\n".join(f"- {note.splitlines()[0]}" for note in notes)


def _p50_p99(percentiles: Mapping[str, int]) -> str:
    return f"{us(percentiles['p50'])} ({us(percentiles['p99'])})"


def _link(path: Path, beside: Path) -> str:
    return Path(os.path.relpath(path, beside)).as_posix()
