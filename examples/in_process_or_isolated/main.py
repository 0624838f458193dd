"""The same model in this process and in a worker: one argument switches, the answers are equal, the difference is measured.

    python examples/in_process_or_isolated/main.py

In process, a call is checked against the specs and run by the same code as in a worker. So the difference is what isolation costs.
"""

import os
import statistics
import time
from pathlib import Path

# One thread for numpy's matrix products, here and in the worker, which inherits it: two pools on the same cores would only measure
# each other.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

import opexec
from opexec import Model, TensorSpec

MODEL = Path(__file__).with_name("model.py")
ROUNDS = 100


def load(isolation: str) -> Model:
    return opexec.load(
        f"{MODEL}:network",
        isolation=isolation,
        inputs=[TensorSpec("x", "float32", ("batch", 256))],
        outputs=[TensorSpec("probabilities", "float32", ("batch", 10))],
    )


def microseconds(model: Model, inputs: dict[str, np.ndarray]) -> float:
    begin = time.perf_counter_ns()
    model.infer(inputs)
    return (time.perf_counter_ns() - begin) / 1e3


def main() -> None:
    with load("none") as here, load("process") as worker:
        for batch in (1, 64, 4096):
            x = np.random.default_rng(batch).normal(size=(batch, 256)).astype(np.float32)
            shared = worker.empty("x", x.shape)
            shared[:] = x
            answer = here.infer({"x": x})["probabilities"]
            # The same numbers, on the same machine, from the same library: equal to the bit.
            equal = np.array_equal(answer, worker.infer({"x": shared})["probabilities"])
            # In turn, so that whatever else the machine does meets both.
            pairs = [
                (microseconds(here, {"x": x}), microseconds(worker, {"x": shared})) for _ in range(ROUNDS)
            ]
            inside = statistics.median(pair[0] for pair in pairs)
            ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
            print(
                f"batch {batch:4}: in process {inside:7.0f} us, isolated {ratio:5.2f} times that; answers equal: {equal}"
            )


if __name__ == "__main__":
    main()
