"""Real models that ship inside packages on PyPI: in process, and in a worker with the same onnxruntime; call by call in turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import opexec
from benchmarks.contender import Options, Unavailable
from benchmarks.demo import measuring, model_file, reading
from benchmarks.driver_process import DriverProcess
from benchmarks.grid import IDLE, SMALLEST
from benchmarks.grid import settings as grid_settings
from benchmarks.ratios import Spread, percentiles
from benchmarks.scenarios.result import (
    AIM_MET,
    MUST_MET,
    NOT_MET,
    Bar,
    Found,
    Settings,
    Verdict,
    number,
    text,
)
from opexec import Environment

REQUIREMENTS = Path(__file__).with_name("shipped_models.txt")
LONG_MS = 5.0
MUST, AIM = 0.01, 0.003
"""Of a model that takes so long: how much of its time isolation may add, besides a wake-up (E after idle)."""
_ROUND_SECONDS = 1.5
Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model's file, and how to make its inputs."""

    title: str
    file: Callable[[], Path]
    inputs: Callable[[], Inputs]


def _line() -> Inputs:
    return {"x": reading.pixels()[None]}


def _page() -> Inputs:
    """The demo's picture over and over, as a page of 320x640."""
    line = reading.pixels()
    repeated = np.tile(line, (1, 320 // line.shape[1] + 1, 640 // line.shape[2] + 1))
    return {"x": np.ascontiguousarray(repeated[None, :, :320, :640])}


def _sound() -> Inputs:
    """A second of a tone in noise at 16 kHz; the detector's own windows are shorter."""
    noise = np.random.default_rng(0).normal(0, 0.05, 512)
    tone = np.sin(2 * np.pi * 220 * np.arange(512) / 16_000)
    return {
        "input": (0.3 * tone + noise).astype(np.float32)[None],
        "state": np.zeros((2, 1, 128), np.float32),
        "sr": np.array(16_000, np.int64),
    }


def _text() -> Inputs:
    """2,048 bytes of this program's text, 8 files at once."""
    text = Path(__file__).read_bytes()[:2048]
    return {"bytes": np.tile(np.frombuffer(text, np.uint8).astype(np.int32), (8, 1))}


def _shipped(*parts: str) -> Callable[[], Path]:
    return lambda: model_file.fetched(REQUIREMENTS).joinpath(*parts)


SUBJECTS = (
    Subject("vision: the demo's text recogniser", model_file.fetch, _line),
    Subject(
        "vision: text detector, PP-OCRv4, 320x640",
        _shipped("rapidocr_onnxruntime", "models", "ch_PP-OCRv4_det_infer.onnx"),
        _page,
    ),
    Subject(
        "audio: voice activity, Silero, 32 ms", _shipped("silero_vad", "data", "silero_vad.onnx"), _sound
    ),
    Subject(
        "text: content type, Magika, 8 x 2 KiB",
        _shipped("magika", "models", "standard_v3_3", "model.onnx"),
        _text,
    ),
)


def measure(settings: Settings) -> Found:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise Unavailable(
            "the calls in process need onnxruntime, which is not installed: pip install 'opexec[bench]'"
        ) from None
    environment = Environment(requirements=[f"onnxruntime=={onnxruntime.__version__}"])
    rows, verdicts, bars, kept = [], [], [], {}
    wake = DriverProcess("E", Options(worker_python=""))
    try:
        wake.open(SMALLEST)
        for subject in SUBJECTS:
            settings.step(f"models: {subject.title}")
            times, wakes = _measured(subject, environment, wake, settings)
            here, there = Spread.of([a for a, _ in times]), Spread.of([b for _, b in times])
            over = [1e3 * (b - a) for a, b in times]
            percent = [100 * (b / a - 1) for a, b in times]
            rows.append(
                (
                    subject.title,
                    text(here),
                    text(there),
                    text(Spread.of(over)),
                    text(Spread.of(percent)),
                    number(float(np.median(wakes))),
                )
            )
            bars.append(Bar.of(subject.title, "opexec", Spread.of(percent)))
            kept[f"{subject.title}, in process, ms"] = [a for a, _ in times]
            kept[f"{subject.title}, in a worker, ms"] = [b for _, b in times]
            kept[f"{subject.title}, E after idle, µs"] = wakes
            if here.median >= LONG_MS:
                verdicts.append(_verdict(subject.title, times, wakes))
        wake.close()
    finally:
        wake.end()
    return Found(
        title="Real models: what isolation adds",
        question="The same calls in process and in a worker with the same onnxruntime, one thread each, in turn; medians of each round.",
        heads=("model", "in process, ms", "in a worker, ms", "added, µs", "added, %", "E after idle, µs"),
        rows=rows,
        verdicts=verdicts,
        bars=bars,
        axis="added by isolation, %",
        facts={"onnxruntime": onnxruntime.__version__},
        rounds=kept,
    )


def _measured(
    subject: Subject, environment: Environment, wake: DriverProcess, settings: Settings
) -> tuple[list[tuple[float, float]], list[float]]:
    """Of each round, the median milliseconds in process and in a worker, and E after idle in µs. The answers agree."""
    path, given = subject.file(), subject.inputs()
    times, wakes = [], []
    with ExitStack() as stack:
        models = [
            stack.enter_context(opexec.load(path, isolation="none", threads=1)),
            stack.enter_context(opexec.load(path, env=environment, threads=1)),
        ]
        inputs = [_placed(model, given) for model in models]
        first, second = (model.infer(own) for model, own in zip(models, inputs, strict=True))
        for name, expected in first.items():
            np.testing.assert_array_equal(np.asarray(second[name]), np.asarray(expected))
        once = measuring.rounds(models, inputs, range(3), warm=3).sum(axis=1).mean() / 1e3
        calls = max(5, int(_ROUND_SECONDS * settings.seconds / once))
        plan = grid_settings(quick=settings.quick).floor_plans[IDLE]
        for _ in range(settings.rounds):
            wakes.append(percentiles(wake.measure(plan))["p50"] / 1e3)
            here, there = np.median(measuring.rounds(models, inputs, range(calls), warm=2), axis=0)
            times.append((float(here), float(there)))
    return times, wakes


def _placed(model: opexec.Model, given: Inputs) -> dict[str, Any]:
    """The inputs where the model's inputs are best made."""
    made = {}
    for name, array in given.items():
        made[name] = model.empty(name, array.shape, array.dtype)
        made[name][...] = array
    return made


def _verdict(title: str, times: list[tuple[float, float]], wakes: list[float]) -> Verdict:
    """Of each round: what was added besides E after idle, in % of the time in process."""
    shares = [100 * (b - a - wake / 1e3) / a for (a, b), wake in zip(times, wakes, strict=True)]
    spread = Spread.of(shares)
    grade = AIM_MET if spread.median <= 100 * AIM else MUST_MET if spread.median <= 100 * MUST else NOT_MET
    return Verdict(
        f"added to a model of ≥ {LONG_MS:g} ms, {title.partition(',')[0]}",
        f"≤ {100 * MUST:g} % + E after idle",
        f"≤ {100 * AIM:g} % + E after idle",
        f"{text(spread)} % + E after idle",
        grade,
    )
