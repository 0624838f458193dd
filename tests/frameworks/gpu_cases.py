"""What every platform that takes a `device` promises on a GPU, in the environment of its framework.

Run by test_gpus.py as conformance.py is, with the same environment variables and the same models.
"""

import json
import os
import sys

import numpy as np
import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(HERE)

import conformance  # noqa: E402
from subject import affine, rows  # noqa: E402

# As pytest finds them.
subjects, subject = conformance.subjects, conformance.subject

DEVICE = "cuda:0"


def allocations_of_torch():
    import torch

    return torch.cuda.memory_stats().get("allocation.all.allocated", 0)


def allocations_of_jax():
    import jax

    return jax.devices("cuda")[0].memory_stats()["num_allocs"]


def allocations_of_tensorflow():
    import tensorflow

    # The most bytes there were at one time, and nothing else, so that each look begins anew.
    most = tensorflow.config.experimental.get_memory_info("GPU:0")["peak"]
    tensorflow.config.experimental.reset_memory_stats("GPU:0")
    return most


#: By platform, or by backend of Keras: how often its framework took memory of the GPU.
ALLOCATIONS = {
    "torch": allocations_of_torch,
    "torchscript": allocations_of_torch,
    "jax": allocations_of_jax,
    "tensorflow": allocations_of_tensorflow,
}


def test_it_answers_on_the_gpu_as_on_the_cpu(subject, memory):
    there = conformance.loaded(subject, device=DEVICE)
    # An engine of TensorRT's has no CPU to run on.
    here = None if subject.platform == "tensorrt" else conformance.loaded(subject, device="cpu")
    for count in (1, 3, 8, 3):
        x = conformance.aligned(rows(count))
        bound = there.bind([x], {})
        for round in range(3):
            x[...] += round  # inputs are looked at anew in each run, as on the CPU
            got = conformance.answer(there, bound, memory)
            assert type(got) is np.ndarray and got.dtype == np.float32
            if subject.exact:
                np.testing.assert_array_equal(got, affine(x))
            if here is not None:
                expected = conformance.answer(here, here.bind([x], {}), memory)
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_an_error_there_leaves_it_usable(subject, memory):
    model = conformance.loaded(subject, device=DEVICE)
    x = conformance.aligned(rows(3))
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017  # each framework has its own
            model.run(model.bind([conformance.aligned(subject.wrong)], {}), memory.reserve)
        conformance.check(subject, conformance.answer(model, model.bind([x], {}), memory), x)


def test_its_tensors_lie_on_the_gpu(subject, memory, tmp_path, monkeypatch):
    if subject.platform == "tensorrt":
        return  # an engine computes nowhere else
    x = conformance.aligned(rows(3))
    if subject.platform == "onnx":
        assert providers_of(subject, x, memory, tmp_path, monkeypatch) == {"CUDAExecutionProvider"}
        return
    count = ALLOCATIONS[getattr(conformance.models, "BACKEND", subject.platform)]
    model = conformance.loaded(subject, device=DEVICE)
    bound = model.bind([x], {})
    conformance.answer(model, bound, memory)  # the first run compiles, and lays weights where they belong
    count()
    before = count()
    assert count() == before
    conformance.answer(model, bound, memory)
    assert count() > before


def providers_of(subject, x, memory, folder, monkeypatch):
    """Which of onnxruntime's providers the nodes of a model ran on, as it says itself."""
    import onnxruntime

    class Profiling(onnxruntime.SessionOptions):
        def __init__(self):
            super().__init__()
            self.enable_profiling = True
            self.profile_file_prefix = str(folder / "profile")

    monkeypatch.setattr(onnxruntime, "SessionOptions", Profiling)
    model = conformance.loaded(subject, device=DEVICE)
    conformance.answer(model, model.bind([x], {}), memory)
    with open(model._session.end_profiling()) as file:
        events = [event["args"] for event in json.load(file) if event.get("cat") == "Node"]
    return {event["provider"] for event in events if event.get("provider")}
