"""Every platform that takes a `device`, on a GPU: within its framework's environment (gpu_cases.py), and called from another process.

Builds of the frameworks for CUDA take gigabytes, so their environments are built only where there is a GPU.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import opexec
from opexec.dropin import onnxruntime as ort
from tests.frameworks.conformance_runs import Groups
from tests.frameworks.environments import built
from tests.frameworks.groups import ON_GPUS
from tests.frameworks.subject import affine, rows
from tests.gpus import needs_gpu

pytestmark = [needs_gpu, pytest.mark.slow, pytest.mark.timeout(1800)]

CALLED = [(name, subject) for name, group in ON_GPUS.items() for subject in group.called]


@pytest.fixture(scope="session")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    return Groups("gpu_cases.py", ON_GPUS, tmp_path_factory.mktemp("gpus"))


def load(groups: Groups, group: str, subject: str, **arguments: Any) -> opexec.Model:
    about = groups.run(group).written["subjects"][subject]
    return opexec.load(
        about["source"],
        env=built(ON_GPUS[group].environment),
        platform=about["platform"],
        options=about["options"],
        env_vars=ON_GPUS[group].env_vars,
        **arguments,
    )


def output(model: opexec.Model, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    result = model(x)
    while not isinstance(result, np.ndarray):
        (result,) = result.values() if isinstance(result, dict) else result
    return result


@pytest.mark.parametrize("name", ON_GPUS)
def test_the_promises_hold_within_the_environment(name: str, groups: Groups) -> None:
    run = groups.run(name)
    assert not run.failures, "\n".join(run.failures)
    assert not run.skipped
    assert run.passed == 3 * len(ON_GPUS[name].subjects)
    assert set(run.written["subjects"]) == set(ON_GPUS[name].subjects)


@pytest.mark.parametrize(("group", "subject"), CALLED)
def test_a_worker_computes_on_the_gpu_and_gives_numpy_arrays(
    group: str, subject: str, groups: Groups
) -> None:
    with load(groups, group, subject, device="cuda:0") as model:
        x = model.empty(groups.run(group).written["subjects"][subject]["input"], (3, 4), np.float32)
        for round in range(3):
            x[...] = rows(3) + round
            for given in (x, x.copy()):
                y = output(model, given)
                assert type(y) is np.ndarray
                np.testing.assert_array_equal(y, affine(rows(3) + np.float32(round)), strict=True)
        with pytest.raises(opexec.ModelError):
            output(model, rows(2, 7))
        np.testing.assert_array_equal(output(model, rows(3)), affine(rows(3)))


def test_models_of_several_frameworks_share_the_gpu(groups: Groups) -> None:
    # None takes all of its memory, so that each finds some.
    wanted = [("gpu-jax", "factory"), ("gpu-tensorflow", "graph"), ("gpu-keras-tensorflow", "keras")]
    with contextlib.ExitStack() as stack:
        models = [
            stack.enter_context(load(groups, group, subject, device="cuda:0"))
            for group, subject in [*wanted, *wanted, ("gpu-torch", "torchscript")]
        ]
        for _ in range(3):
            for model in models:
                np.testing.assert_array_equal(output(model, rows(8)), affine(rows(8)))


def test_onnxruntimes_face_runs_where_the_providers_say(groups: Groups) -> None:
    path = Path(groups.run("gpu-onnxruntime").written["subjects"]["onnx"]["source"])
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    assert ort.get_available_providers() == [cuda, cpu]
    for asked in ([cuda, cpu], [(cuda, {"device_id": 0, "gpu_mem_limit": 1 << 30})], [cpu]):
        env = built("gpu-onnxruntime")
        with ort.InferenceSession(path, providers=asked, env=env) as session:  # type: ignore[arg-type]
            assert session.get_providers() == ([cpu] if asked == [cpu] else [cuda, cpu])
            np.testing.assert_array_equal(session.run(None, {"x": rows(3)})[0], affine(rows(3)))
