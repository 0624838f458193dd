"""Reports: kept without loss, compared with each other, shown as trace, CSV, page and picture."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from opexec import OpexecError
from opexec.bench import comparing, plots, trace, words
from opexec.bench.breakdown import STEPS, Breakdown
from opexec.bench.page import page
from opexec.bench.report import Report, Settings, read
from tests.opexec.bench.reports import TIMED, report, result

SIDE_BY_SIDE = report(
    result("in process", (1e-3, 1.1e-3, 0.9e-3, 1e-3, 1e-3, 1.05e-3), isolation="none"),
    result("isolated & <fast>", (1.2e-3, 1.3e-3, 1.1e-3, 1.2e-3, 1.2e-3, 1.3e-3)),
    result("broken", error="the weights are gone", env="old"),
)


# ---- files


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    SIDE_BY_SIDE.write(tmp_path / "r.json")
    assert read(tmp_path / "r.json") == SIDE_BY_SIDE
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["results"][1]["difference"]["p50"]["value"] == pytest.approx(1.2, rel=0.02)
    assert told["results"][1]["breakdown"]["steps"]["model"] == pytest.approx(1e-4)


def test_an_open_interval_is_null_in_json() -> None:
    short = report(result("a", (1e-3,) * 3, isolation="none"), result("b", (2e-3,) * 3))
    told = json.loads(json.dumps(short.to_dict(), allow_nan=False))
    assert told["results"][1]["difference"]["p50"]["high"] is None


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"kind": "opexec bench", "format": 99}', '{"kind": "opexec bench", "format": 1}'],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(OpexecError, match="is no report"):
        read(tmp_path / "r.json")
    with pytest.raises(OpexecError, match="cannot be read"):
        read(tmp_path / "absent.json")
    with pytest.raises(OpexecError, match="cannot be written"):
        SIDE_BY_SIDE.write(tmp_path / "no" / "folder.json")


@pytest.mark.parametrize(
    "wrong", [{"rounds": 0}, {"seconds": 0}, {"rate": -1.0}, {"idle": float("inf")}, {"starts": 1.5}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


# ---- side by side


def test_variants_are_held_against_the_first_setup_called_alike() -> None:
    several = report(
        *(
            result(f"{how} {batch}", isolation=how, batch=batch)
            for batch in (1, 8)
            for how in ("none", "process")
        )
    )
    bases = [several.base(each) for each in several.results]
    assert [base and base.label for base in bases] == [None, "none 1", None, "none 8"]
    one = report(*(result(f"batch {batch}", batch=batch) for batch in (1, 8)))
    assert [base and base.label for base in map(one.base, one.results)] == [None, "batch 1"]


def test_what_failed_has_no_difference() -> None:
    assert SIDE_BY_SIDE.difference(SIDE_BY_SIDE.results[2]) is None
    assert words.notes(SIDE_BY_SIDE) == ["broken was left out: the weights are gone"]


# ---- two runs


def changed(old: Report, new: Report) -> comparing.Change:
    (change,) = comparing.compare(old, new).changes
    return change


def noisy(seed: int, factor: float = 1.0, spread: float = 0.05, pace: float = 5e-4) -> Report:
    random = np.random.default_rng(seed)
    return report(result("net", factor * 1e-3 * random.lognormal(0, spread, 10), pace))


def test_equal_runs_are_noise_and_slower_ones_are_slower() -> None:
    verdicts = [changed(noisy(seed), noisy(seed + 1000)).verdict for seed in range(20)]
    assert verdicts.count(comparing.NOISE) >= 18
    assert all(
        changed(noisy(seed), noisy(seed + 1000, 1.3)).verdict == comparing.SLOWER for seed in range(20)
    )
    assert all(
        changed(noisy(seed, 1.3), noisy(seed + 1000)).verdict == comparing.QUICKER for seed in range(20)
    )


def test_a_slower_machine_is_no_slower_model() -> None:
    found = changed(noisy(1), noisy(2, 1.5, pace=7.5e-4))
    assert found.verdict == comparing.NOISE and found.p50.low > 1.3
    assert comparing.compare(noisy(1), noisy(2, pace=7.5e-4)).pace == pytest.approx(1.5)


def test_less_than_three_percent_are_noise_however_sure() -> None:
    assert (
        changed(report(result(medians=(1e-3,) * 8)), report(result(medians=(1.02e-3,) * 8))).verdict
        == comparing.NOISE
    )
    found = changed(report(result(medians=(1e-3,) * 8)), report(result(medians=(1.05e-3,) * 8)))
    assert found.verdict == comparing.SLOWER
    assert found.slower_than(1.04) and not found.slower_than(1.1)


def test_only_like_is_compared_with_like() -> None:
    old, new = report(result("a"), result("b", batch=8)), report(result("c", callers=4), result("b", batch=8))
    found = comparing.compare(old, new)
    assert [change.label for change in found.changes] == ["b"]
    assert (found.only_old, found.only_new) == (("a",), ("c",))
    with pytest.raises(ValueError, match="rate was None and is 5.0"):
        comparing.compare(old, report(result(), rate=5.0))


# ---- steps of a call


def test_steps_add_up_to_the_call() -> None:
    found = Breakdown.of([TIMED] * 5)
    assert list(found.steps.values()) == pytest.approx([5e-6, 20e-6, 2e-6, 100e-6, 8e-6, 30e-6, 4e-6])
    assert found.total == pytest.approx(sum(found.steps.values())) == pytest.approx(169e-6)


def test_the_middle_half_of_calls_counts() -> None:
    slow = TIMED._replace(returned=TIMED.returned + 10**9)
    assert Breakdown.of([TIMED] * 9 + [slow]).total == pytest.approx(169e-6)
    with pytest.raises(ValueError, match="at least one"):
        Breakdown.of([])


def test_the_trace_is_what_perfetto_opens() -> None:
    """The structure that the Trace Event Format asks for: complete events that nest, names of rows, arrows in pairs."""
    told = json.loads(json.dumps(trace.of(SIDE_BY_SIDE)))
    events = told["traceEvents"]
    assert {event["ph"] for event in events} == {"X", "M", "s", "f"}
    for event in events:
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and event["name"]
    rows: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0
            rows.setdefault((event["pid"], event["tid"]), []).append(
                (event["ts"], event["ts"] + event["dur"])
            )
    assert {pid for pid, _ in rows} == {100, 200}
    for spans in rows.values():
        for begin, end in spans:
            # On one row an event lies within another, or outside of it.
            assert all(
                a <= begin and end <= b or begin <= a and b <= end or end <= a or b <= begin for a, b in spans
            )
    named = {
        (event["pid"], event["tid"])
        for event in events
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    assert named >= set(rows)
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts.keys() == ends.keys() and len(starts) == 2 * 3 * 2
    for name, start in starts.items():
        assert (
            start["name"] == ends[name]["name"]
            and start["ts"] <= ends[name]["ts"]
            and ends[name]["bp"] == "e"
        )
    steps = {event["name"]: event["dur"] for event in events if event["ph"] == "X"}
    assert steps["model"] == 100 and steps["infer"] == 169 and steps["waiting"] == 160


# ---- shown


def test_csv_has_a_line_a_variant() -> None:
    lines = list(csv.DictReader(io.StringIO(words.as_csv(SIDE_BY_SIDE))))
    assert [line["label"] for line in lines] == ["in process", "isolated & <fast>", "broken"]
    assert float(lines[1]["p50"]) == pytest.approx(1.2e-3, rel=0.01)
    assert float(lines[1]["p50_ratio"]) == pytest.approx(1.2, rel=0.02) and lines[0]["p50_ratio"] == ""
    assert lines[2]["error"] == "the weights are gone"


def test_the_strip_shows_where_the_percentiles_lie() -> None:
    spread = report(result(medians=(1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 1e-2)))
    low, high = words.bounds(spread)
    text = words.strip(spread.results[0], low, high)
    assert len(text) == words.STRIP_WIDTH and text[0] == "●" and "┼" in text


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.pictures += tag == "img"
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_asks_no_network() -> None:
    text = page(SIDE_BY_SIDE)
    parsed = _Page()
    parsed.feed(text)
    assert parsed.open == [] and parsed.pictures == 6
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.addresses)
    assert not re.search(r"url\(|@import|<link|<script src", text)
    assert "isolated &amp; &lt;fast&gt;" in text and "<fast>" not in text
    inside = re.search(r'<script type="application/json" id="report">\n(.*?)\n</script>', text, re.DOTALL)
    assert inside and Report.from_dict(json.loads(inside[1])) == SIDE_BY_SIDE


def test_the_picture_is_one(tmp_path: Path) -> None:
    plots.draw(SIDE_BY_SIDE, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as picture:
        picture.load()
        assert picture.width > 1000 and len(picture.convert("RGB").getcolors(1 << 24) or ()) > 50
    plots.draw(report(result("broken", error="gone")), tmp_path / "none.png")


def test_every_step_has_a_color() -> None:
    assert set(plots.STEP_COLORS) == {step.key for step in STEPS} == set(TIMED.stages) - {"total"}
