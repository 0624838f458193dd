"""A shared model with a BatchPolicy: a client's own calls are joined, the owner's too, and figures of the owner's are told."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import opexec
from opexec import BatchPolicy, Model, OpexecError, TensorSpec
from opexec.metrics import snapshot
from opexec.sharing.up import House
from tests.command import opexec_here
from tests.loaded import source
from tests.models import Gate

PATIENCE = 60.0
SPECS = {
    "inputs": [TensorSpec("x", "float64", ["rows"])],
    "outputs": [TensorSpec("y", "float64", ["rows"]), TensorSpec("n", "int64", ["rows"])],
}


def load(**arguments: object) -> Model:
    policy = BatchPolicy(max_size=4, max_delay=0.0)
    return opexec.load(
        source("batched"), name="joined", batch=policy, timeout=PATIENCE, **{**SPECS, **arguments}
    )  # type: ignore[arg-type]


def joins(model: Model, gate: Gate) -> None:
    """Two calls made while the worker is at another one are run as one."""
    held = model.submit({"x": np.array([-1.0])})
    gate.wait()
    both = [model.submit({"x": np.array([value])}) for value in (1.0, 2.0)]
    gate.let()
    assert held.result(PATIENCE)["y"] == -10
    assert [one.result(PATIENCE)["y"].tolist() for one in both] == [[10], [20]]
    assert [one.result(PATIENCE)["n"].tolist() for one in both] == [[2], [2]]


def test_calls_of_a_client_are_joined_with_each_other(gate: Gate, runtime: Path) -> None:
    with load() as model, model.share():
        with opexec.attach("joined", timeout=PATIENCE) as attached:
            joins(attached, gate)
            batches = attached.stats().batches
            assert batches is not None and batches.sizes == {1: 1, 2: 1}
            with pytest.raises(OpexecError, match="belongs to another process"):
                attached.share("again")
        with opexec.attach("joined", timeout=PATIENCE, check=False) as attached:
            assert attached.stats().batches is None
            assert attached.infer({"x": np.array([3.0])})["y"] == 30
        joins(model, gate)


def test_a_file_has_its_models_calls_joined(gate: Gate, runtime: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    specs = "\n".join(
        f"[[models.joined.{kind}]]\nname = '{spec.name}'\ndtype = '{spec.dtype}'\nshape = ['rows']"
        for kind, listed in SPECS.items()
        for spec in listed
    )
    table = f"[models.joined]\nsource = {json.dumps(source('batched'))}\n{specs}\n[models.joined.batch]\n"
    file.write_text(table + "max_size = 4\nmax_delay = 0.0\n")
    house = House(file)
    try:
        house.follow()
        with opexec.attach("joined", timeout=PATIENCE) as attached:
            joins(attached, gate)
            pid = attached.workers[0].pid
        file.write_text(table + "max_size = 8\nmax_delay = 0.0\n")
        house.follow()
        with opexec.attach("joined", timeout=PATIENCE) as attached:
            batches = attached.stats().batches
            assert batches is not None and batches.max_size == 8
            assert attached.workers[0].pid != pid
    finally:
        house.close()


def test_figures_of_batches(gate: Gate, runtime: Path) -> None:
    with load() as model, model.share(), opexec.metrics.serve({"joined": model}) as server:
        joins(model, gate)
        batches = model.stats().batches
        assert batches is not None
        assert (batches.batches, batches.calls, batches.rows) == (2, 3, 3)
        assert (batches.mean_calls, batches.fill) == (1.5, 3 / 8)
        seen = snapshot.of(model)["batches"]
        assert (seen["count"], seen["calls"], seen["mean_calls"], seen["fill"]) == (2, 3, 1.5, 3 / 8)
        with urlopen(server.url, timeout=PATIENCE) as reply:
            families = text_string_to_metric_families(reply.read().decode())
        found = {
            (sample.name, sample.labels.get("le")): sample.value
            for family in families
            for sample in family.samples
        }
        assert found["opexec_batch_rows_bucket", "1.0"] == 1 and found["opexec_batch_rows_bucket", "2.0"] == 2
        assert found["opexec_batch_rows_count", None] == 2 and found["opexec_batch_rows_sum", None] == 3
        assert found["opexec_batched_calls_total", None] == 3 and found["opexec_batch_max_rows", None] == 4
        head, row = opexec_here("top", "--once", "--interval", "0.1").out.splitlines()
        assert "CALLS/BATCH  FILL" in head
        assert row.split()[-3:-1] == ["1.5", "38%"]
