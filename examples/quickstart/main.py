"""Load a model into a worker process, call it, look at what came back.

python examples/quickstart/main.py
"""

from pathlib import Path

import numpy as np

import opexec
from opexec import TensorSpec

MODEL = Path(__file__).with_name("model.py")


def main() -> None:
    with opexec.load(
        f"{MODEL}:edges",
        # Optional. With specs every call is checked, lists are accepted, and `empty` knows the dtype.
        inputs=[TensorSpec("image", "uint8", ("height", "width", 3))],
        outputs=[TensorSpec("strength", "float32", (None, None)), TensorSpec("strongest", "float32", ())],
    ) as model:
        worker = model.workers[0]
        print(f"worker {worker.pid}: Python {worker.python}, numpy {worker.numpy}, {worker.state}")

        image = np.zeros((120, 160, 3), np.uint8)
        image[40:80, 60:100] = 200  # a square
        result = model.infer({"image": image})
        strength = result["strength"]
        print(f"strength: {strength.dtype} {strength.shape}, strongest {float(result['strongest']):.0f}")

        rows, columns = np.nonzero(strength > strength.max() / 2)
        print(f"edges in rows {rows.min()}..{rows.max()}, columns {columns.min()}..{columns.max()}")

        try:
            model.infer({"image": image.astype(np.float64)})
        except opexec.SpecError as error:
            print(f"refused: {error}")

    # Outputs are views of shared memory, and they last as long as you hold them, whatever became of the model.
    print(f"after close: {np.count_nonzero(strength)} pixels lie on edges")


if __name__ == "__main__":
    main()
