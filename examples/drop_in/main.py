"""A loaded model is called like the function it stands for, and returns what that function returns.

    python examples/drop_in/main.py

The code that uses the detector does not know whether it runs here or in a worker.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import opexec
from opexec import TensorSpec

MODEL = Path(__file__).with_name("model.py")


def report(detect: Callable[..., Any], image: np.ndarray) -> str:
    boxes, summary = detect(image, threshold=0.99)
    return f"{type(boxes).__name__} of {len(boxes)} boxes, first {boxes[0].tolist()}; {summary}"


def plain_function() -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("model", MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.spots()


def main() -> None:
    image = np.random.default_rng(3).random((64, 64))
    here = report(plain_function(), image)
    print(f"function: {here}")
    specs = [TensorSpec("image", "float64", (None, None)), TensorSpec("threshold", "float64", ())]
    with opexec.load(f"{MODEL}:spots", inputs=specs) as model:
        there = report(model, image)
        print(f"worker:   {there}")
        print(f"the same: {here == there}")

        # `infer` gives the same result flat, by name.
        named = model.infer({"image": image, "threshold": 0.99})
        print(f"infer:    {', '.join(named)}")


if __name__ == "__main__":
    main()
