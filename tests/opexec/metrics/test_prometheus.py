"""The endpoint: what Prometheus' own parsers read from it is what the models did."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.samples import Sample

import opexec
from opexec import Model, ModelError, SpecError, TensorSpec, metrics
from opexec.metrics.prometheus import STATES
from tests.loaded import source

SPECS = [TensorSpec("how", "str", ()), TensorSpec("x", "float64", (1,))]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def fetched(url: str, accept: str = "*/*") -> tuple[str, str]:
    """Kind and text of what is there."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as reply:
        return reply.headers["Content-Type"], reply.read().decode()


def samples(families: Any) -> dict[tuple[Any, ...], float]:
    """Name and labels -> value."""
    found: dict[tuple[Any, ...], float] = {}
    for family in families:
        for sample in family.samples:
            assert isinstance(sample, Sample)
            found[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return found


def key(name: str, **labels: str) -> tuple[Any, ...]:
    return (name, *sorted({"model": "m", **labels}.items()))


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    """3 good calls, 2 that the model fails, 1 that does not fit."""
    with opexec.load(source("failing"), name="m", inputs=SPECS) as model:
        x = np.zeros(1)
        model.infer({"how": "good", "x": x})
        model.submit({"how": "good", "x": x}).result(60)
        asyncio.run(model.infer_async({"how": "good", "x": x}))
        with pytest.raises(ModelError):
            model.infer({"how": "raise", "x": x})
        with pytest.raises(ModelError):
            model.submit({"how": "raise", "x": x}).result(60)
        with pytest.raises(SpecError):
            model.infer({"how": "good", "x": np.zeros(2)})
        yield model


def test_errors_are_counted_by_type_however_the_call_was_made() -> None:
    with opexec.load(source("failing"), name="m") as model:
        bad = {"how": np.array("raise")}
        ways: dict[str, Any] = {
            "infer": lambda: model.infer(bad),
            "call": lambda: model(**bad),
            "submit": lambda: model.submit(bad).result(60),
            "infer_async": lambda: asyncio.run(model.infer_async(bad)),
        }
        for number, way in enumerate(ways.values(), 1):
            with pytest.raises(ModelError):
                way()
            assert model.stats().errors == {"ModelError": number}
        with pytest.raises(SpecError):
            model.infer({"how": object()})
        with pytest.raises(SpecError):
            model.submit({"how": object()})
        assert model.stats().errors == {"ModelError": 4, "SpecError": 2}
        stats = model.stats()
        assert (stats.calls, stats.in_flight, stats.restarts) == (4, 0, 0)
    with pytest.raises(opexec.ModelClosed):
        model.infer(bad)
    assert model.stats().errors["ModelClosed"] == 1


def test_a_model_in_this_process_counts_too() -> None:
    with opexec.load(source("failing"), isolation="none") as model:
        with pytest.raises(ModelError):
            model.infer({"how": np.array("raise")})
        assert model.stats().errors == {"ModelError": 1}
        assert model.stats().latency == {}


def test_the_stages_of_a_call_add_up(model: Model) -> None:
    latency = model.stats().latency
    assert tuple(latency) == metrics.STAGES
    for one in latency.values():
        assert 0 <= one.p50 <= one.p90 <= one.p99 <= one.p999 <= one.max
        assert one.count >= 1
    stages = sum(one.mean for stage, one in latency.items() if stage != "total")
    assert stages == pytest.approx(latency["total"].mean, rel=1e-6)


def test_both_formats_say_what_the_models_did(model: Model) -> None:
    with metrics.serve({"m": model}) as server:
        kind, text = fetched(server.url)
        assert kind.startswith("text/plain")
        found = samples(parse_text(text))
        kind, text = fetched(server.url, OPENMETRICS)
        assert kind.startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")
        open = samples(parse_openmetrics(text))
    for seen in (found, open):
        assert seen[key("opexec_calls_total")] == 5
        assert seen[key("opexec_errors_total", type="ModelError")] == 2
        assert seen[key("opexec_errors_total", type="SpecError")] == 1
        assert seen[key("opexec_model_ready")] == 1
        assert seen[key("opexec_calls_in_flight")] == 0
        assert seen[key("opexec_copied_bytes_total", direction="in")] > 0
        assert seen[key("opexec_copied_bytes_total", direction="out")] > 0
        assert seen[key("opexec_shared_memory_bytes")] == model.stats().shared_memory
        assert seen[key("opexec_worker_restarts_total")] == 0
        assert seen[key("opexec_worker_memory_bytes", replica="0")] > 1 << 20
        assert seen[key("opexec_worker_cpu_seconds_total", replica="0")] > 0
        states = [seen[key("opexec_worker_state", replica="0", state=state)] for state in STATES]
        assert sum(states) == 1 and states[STATES.index("ready")] == 1
        for stage in metrics.STAGES:
            counts = [
                value
                for name, value in seen.items()
                if name[0] == "opexec_call_seconds_bucket" and ("stage", stage) in name
            ]
            assert counts == sorted(counts), "buckets are cumulative"
            assert counts[-1] == seen[key("opexec_call_seconds_count", stage=stage)] >= 1
            assert seen[key("opexec_call_seconds_sum", stage=stage)] > 0
    assert {name[0] for name in found} == {name[0] for name in open}


def test_a_scrape_looks_at_the_models_there_are() -> None:
    with opexec.Supervisor() as supervisor:
        server = supervisor.serve_metrics()
        assert server.host == "127.0.0.1" and server.port > 0
        assert samples(parse_text(fetched(server.url)[1])) == {}
        model = supervisor.load(source("double"), name="m", restart=False)
        model.infer({"x": np.ones(3)})
        assert samples(parse_text(fetched(server.url)[1]))[key("opexec_calls_total")] == 1
        pid = model.workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(opexec.WorkerDied):
            model.infer({"x": np.ones(3)})
        found = samples(parse_text(fetched(server.url)[1]))
        assert found[key("opexec_model_ready")] == 0
        assert found[key("opexec_errors_total", type="WorkerDied")] == 1
        assert key("opexec_worker_memory_bytes", replica="0") not in found
    with pytest.raises(urllib.error.URLError):
        fetched(server.url)
    with pytest.raises(opexec.OpexecError, match="closed"):
        supervisor.serve_metrics()


def test_names_with_quotes_and_a_model_that_cannot_tell(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        name = "broken"

        def stats(self) -> None:
            raise RuntimeError("no numbers today")

    odd = 'a "b" \\ \n c'
    with metrics.serve(lambda: {"broken": Broken(), odd: model}) as server:  # type: ignore[dict-item]
        found = samples(parse_text(fetched(server.url)[1]))
        opened = samples(parse_openmetrics(fetched(server.url, OPENMETRICS)[1]))
    for seen in (found, opened):
        assert seen["opexec_calls_total", ("model", odd)] == 5
        assert not any(("model", "broken") in name for name in seen)
    assert "cannot tell the metrics of model 'broken'" in caplog.text


def test_the_port_is_free_again_and_a_copy_does_not_hold_it(model: Model) -> None:
    server = metrics.serve({"m": model})
    ready, writer = os.pipe()
    go, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os.write(writer, b".")
        os.read(go, 1)
        os._exit(0)
    os.read(ready, 1)
    server.close()
    server.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((server.host, server.port))
        again.listen()
    os.write(release, b".")
    assert os.waitpid(pid, 0)[1] == 0
    for fd in (ready, writer, go, release):
        os.close(fd)


def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a mapping"):
        metrics.serve(5)  # type: ignore[arg-type]


def test_without_the_package_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import opexec.metrics\n"
        "try:\n    opexec.metrics.serve({})\n"
        "except opexec.OpexecError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "pip install 'opexec[metrics]'" in said.stdout, said
