"""The latency of models, measured side by side: what `opexec bench` does, for programs.

from opexec import bench

report = bench.run("net.onnx", in_process=True, batches=[1, 8])
for result in report.results:
    print(result.label, result.latency.p50, report.difference(result))
"""

from .breakdown import STEPS, Breakdown
from .comparing import Change, Changes, compare
from .report import Costs, Difference, Report, Result, Round, Settings, Start, read
from .running import measure, run
from .setups import Setup, Variant
from .statistics import Latency, Ratio

__all__ = [
    "STEPS",
    "Breakdown",
    "Change",
    "Changes",
    "Costs",
    "Difference",
    "Latency",
    "Ratio",
    "Report",
    "Result",
    "Round",
    "Settings",
    "Setup",
    "Start",
    "Variant",
    "compare",
    "measure",
    "read",
    "run",
]
