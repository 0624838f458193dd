"""What models do, in numbers: latencies, errors, and what their workers take; for Prometheus, and for `opexec top`.

Nothing here is on the path of a call. `latency` sorts the times that calls leave behind into histograms when somebody asks, `errors` counts
failed calls, `snapshot` puts all that is known of a model into one plain structure, which crosses sockets, and `prometheus` serves it.
"""

from __future__ import annotations

from .latency import STAGES, LatencySummary
from .server import MetricsServer, serve

__all__ = ["STAGES", "LatencySummary", "MetricsServer", "serve"]
