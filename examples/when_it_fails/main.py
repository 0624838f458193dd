"""Every failure is one typed error, at once, and the calling program lives on.

python examples/when_it_fails/main.py
"""

from pathlib import Path

import numpy as np

import opexec
from opexec import (
    CallTimeout,
    LoadError,
    Model,
    ModelError,
    OutOfSharedMemory,
    SpecError,
    TensorSpec,
    WorkerDied,
)

MODEL = Path(__file__).with_name("model.py")


def load() -> Model:
    specs = [TensorSpec("x", "float32", ("n",))]
    return opexec.load(f"{MODEL}:fragile", inputs=specs, shm_limit="16MiB", name="fragile")


def main() -> None:
    with load() as model:
        try:
            model.infer({"x": np.ones(3), "y": np.ones(3)})
        except SpecError as error:
            print(f"wrong inputs: {error}")

        try:
            model.infer({"x": [101.0]})
        except ModelError as error:
            print(f"the model raised: {error.type}: {error.message}")

        try:
            model.infer({"x": np.zeros(8_000_000, np.float32)})
        except OutOfSharedMemory as error:
            print(f"too large: {error}")

        # None of these did any harm.
        print(f"the next call: {float(model.infer({'x': [1.0, 2.0]})['mean'])}")

        try:
            model.infer({"x": [-1.0]})
        except WorkerDied as error:
            print(
                f"the worker died of {error.signal} (stage {error.stage!r}), having said {error.stderr[0]!r}"
            )

    # A dead worker is not replaced by itself: load the model again.
    with load() as model:
        try:
            model.infer({"x": [0.0]}, timeout=0.1)
        except CallTimeout as error:
            print(f"too slow: {error}")
        # The worker is still at it. Who does not want to wait for that closes the model, which ends the worker.

    try:
        opexec.load(f"{MODEL}:robust")
    except LoadError as error:
        print(f"cannot load (stage {error.stage!r}): {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
