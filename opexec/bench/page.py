"""The report as one page of HTML: it holds its pictures and its figures, and asks no network for anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape

from .. import sizes
from . import plots, words
from .breakdown import STEPS
from .report import Report, Result

_STYLE = """
:root{color-scheme:light;--ink:#1f2933;--soft:#52606d;--line:#e4e7eb;--ground:#f5f7fa;--accent:#1f7a8c;--bad:#c53030;--good:#2f7d4f}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 24px 64px}
header h1{margin:0;font-size:26px;letter-spacing:-.01em}
header p{margin:4px 0 0;color:var(--soft)}
h2{font-size:16px;margin:36px 0 12px}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:14px;margin-top:24px}
.card,figure,.sheet{background:#fff;border:1px solid var(--line);border-radius:10px;box-shadow:0 1px 2px rgba(31,41,51,.04)}
.card{padding:14px 16px;border-top:4px solid var(--own,var(--accent))}
.card h3{margin:0;font-size:13px;font-weight:600;color:var(--soft);overflow-wrap:anywhere}
.card .figure{font-size:28px;font-weight:650;letter-spacing:-.02em;margin:2px 0}
.card .more{font-size:12.5px;color:var(--soft)}
.worse{color:var(--bad)}.better{color:var(--good)}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(520px,100%),1fr));gap:14px}
figure{margin:0;padding:14px 14px 10px}
figure img{display:block;width:100%;height:auto}
figcaption{color:var(--soft);font-size:13px;margin-top:6px}
.sheet{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft);background:#fafbfc}
th:first-child,td:first-child,td.text,th.text{text-align:left}
tbody tr:last-child td{border-bottom:0}
td.error{color:var(--bad);text-align:left;white-space:normal}
i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:8px;vertical-align:baseline}
ul.notes{margin:18px 0 0;padding:12px 16px 12px 34px;background:#fffaf0;border:1px solid #f3ddb3;border-radius:10px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0;padding:14px 16px;font-size:13.5px}
dt{color:var(--soft)}dd{margin:0}
"""


def page(report: Report) -> str:
    """Raises OpexecError where matplotlib is missing."""
    plots.check_available()
    models = ", ".join(dict.fromkeys(str(result.axes["model"]) for result in report.results))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(models)}: latency</title><style>{_STYLE}</style></head><body><main>",
        f"<header><h1>{escape(models)}</h1><p>{escape(plots.headline(report))} · {escape(report.date[:16].replace('T', ' '))} UTC</p></header>",
        _cards(report),
        _notes(words.notes(report)),
        "<h2>Latency</h2>",
        _latency(report),
        "<h2>Pictures</h2>",
        _pictures(report),
        "<h2>Start, costs</h2>",
        _costs(report),
        _breakdowns(report),
        "<h2>What ran</h2>",
        _ran(report),
        "<h2>How it was measured</h2>",
        _facts(report),
        '<script type="application/json" id="report">',
        json.dumps(report.to_dict(), ensure_ascii=False).replace("<", "\\u003c"),
        "</script></main></body></html>\n",
    ]
    return "\n".join(filter(None, parts))


def _cards(report: Report) -> str:
    cards = []
    for result in report.results:
        color = plots.color(report, result)
        if result.latency is None or result.error is not None:
            inside = '<div class="figure worse">failed</div>'
        else:
            inside = (
                f'<div class="figure">{words.duration(result.latency.p50)}</div>'
                f'<div class="more">p99 {words.duration(result.latency.p99)} · {words.number(result.throughput)} calls/s</div>'
                f'<div class="more">{_verdict(report, result)}</div>'
            )
        cards.append(f'<div class="card" style="--own:{color}"><h3>{escape(result.label)}</h3>{inside}</div>')
    return f'<section class="cards">{"".join(cards)}</section>'


def _verdict(report: Report, result: Result) -> str:
    difference = report.difference(result)
    if difference is None:
        return "base of the comparison" if len(report.results) > 1 else ""
    kind = ""
    if difference.p50.beyond_noise and difference.p50.high != float("inf"):
        kind = "worse" if difference.p50.value > 1 else "better"
    return f'<span class="{kind}">{escape(words.against_base(report, result))}</span>'


def _notes(lines: Sequence[str]) -> str:
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def _latency(report: Report) -> str:
    head = (
        "",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "mean",
        "calls",
        "calls/s",
        "p50 after idle",
        "p50 against base",
    )
    rows = []
    for result in report.results:
        found = result.latency
        if found is None or result.error is not None:
            rows.append(
                [_name(report, result), f'<td class="error" colspan="10">{escape(result.error or "")}</td>']
            )
            continue
        times = (found.p50, found.p90, found.p99, found.p999, found.max, found.mean)
        rows.append(
            [
                _name(report, result),
                *(_cell(words.duration(time)) for time in times),
                _cell(f"{found.calls:,}"),
                _cell(words.number(result.throughput)),
                _cell("" if result.after_idle is None else words.duration(result.after_idle.p50)),
                _cell(words.against_base(report, result)),
            ]
        )
    return _table(head, rows)


def _costs(report: Report) -> str:
    head = (
        *(
            "",
            "load",
            "first call",
            "warm after",
            "CPU/call, caller",
            "CPU/call, worker",
            "copied in + out/call",
        ),
        *("memory", "shared memory"),
    )
    rows = []
    for result in report.results:
        start, costs = result.start, result.costs
        if start is None or costs is None:
            continue
        rows.append(
            [
                _name(report, result),
                _cell(words.duration(sorted(start.loads)[len(start.loads) // 2])),
                _cell(words.duration(sorted(start.first_calls)[len(start.first_calls) // 2])),
                _cell(f"{words.duration(start.warm_up_seconds)}{'' if start.steady else ', not steady'}"),
                _cell(words.duration(costs.caller_cpu)),
                _cell(words.duration(costs.worker_cpu)),
                _cell(words.copied(result)),
                _cell(words.memory(result)),
                _cell(sizes.text(costs.shared_memory) if costs.shared_memory else ""),
            ]
        )
    return _table(head, rows)


def _ran(report: Report) -> str:
    rows = []
    for result in report.results:
        runner = result.runner or {}
        python = f"Python {runner['python']}" if runner else ""
        framework = (
            f"{runner['framework']} {runner['framework_version']}, "
            if runner.get("framework_version")
            else ""
        )
        inputs = ", ".join(f"{name}: {text}" for name, text in result.inputs.items())
        rows.append(
            [
                _name(report, result),
                _cell(inputs, "text"),
                _cell(framework + python, "text"),
                _cell(runner.get("interpreter", ""), "text"),
            ]
        )
    return _table(("", "inputs", "runs in", "interpreter"), rows)


def _breakdowns(report: Report) -> str:
    found = [(result, result.breakdown) for result in report.results if result.breakdown is not None]
    if not found:
        return ""
    head = ("step", *(result.label for result, _ in found), "what it is")
    rows = []
    for step in STEPS:
        swatch = f'<i style="background:{plots.STEP_COLORS[step.key]}"></i>'
        times = [
            _cell(f"{words.duration(each.steps[step.key])} · {each.steps[step.key] / each.total:.0%}")
            for _, each in found
        ]
        rows.append([f"<td>{swatch}{step.name}</td>", *times, _cell(step.meaning, "text")])
    rows.append(["<td>all</td>", *(_cell(words.duration(each.total)) for _, each in found), _cell("")])
    return "<h2>Steps of a call</h2>" + _table(head, rows)


def _pictures(report: Report) -> str:
    figures = []
    for text, svg in plots.svgs(report):
        source = base64.b64encode(svg).decode("ascii")
        figures.append(
            f'<figure><img alt="{escape(text)}" src="data:image/svg+xml;base64,{source}">'
            f"<figcaption>{escape(text)}</figcaption></figure>"
        )
    return f'<section class="pictures">{"".join(figures)}</section>'


def _facts(report: Report) -> str:
    machine, settings = report.machine, report.settings
    loop = (
        "closed loop: each caller calls again when it has its answer"
        if settings.rate is None
        else f"open loop: {settings.rate:g} calls a second; latency counts from when a call was due"
    )
    pairs = (
        ("loop", loop),
        (
            "rounds",
            f"{settings.rounds}, with {settings.seconds:g} s of calls for each variant in an order drawn anew",
        ),
        ("after idle", f"{settings.idle_calls} calls a round, each after {words.duration(settings.idle)}"),
        ("inputs", "in arrays of Model.empty: nothing is copied in" if settings.shared else "plain arrays"),
        ("intervals", "95 %, by bootstrap over rounds"),
        ("processor", f"{machine['cpu']}{', virtual' * bool(machine['virtual'])}"),
        ("cores", f"{machine['cores_usable']:g} usable of {machine['cores']}"),
        ("memory", sizes.text(machine["memory"])),
        ("kernel", f"{machine['kernel']}, {machine['architecture']}"),
        ("load before", f"{machine['load_average']}"),
        ("caller", f"{machine['python']}, {', '.join(f'{n} {v}' for n, v in machine['packages'].items())}"),
        ("opexec", report.opexec),
    )
    inside = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f'<div class="sheet"><dl>{inside}</dl></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    left = ("what it is", "inputs", "runs in", "interpreter")
    titles = "".join(
        f'<th class="text">{escape(text)}</th>' if text in left else f"<th>{escape(text)}</th>"
        for text in head
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="sheet"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _name(report: Report, result: Result) -> str:
    return f'<td><i style="background:{plots.color(report, result)}"></i>{escape(result.label)}</td>'


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"
