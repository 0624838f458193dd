"""A model that needs a package this process does not have: it runs in an environment of its own, and images reach it without a copy.

python examples/quickstart.py
"""

from __future__ import annotations

import numpy as np


def blur():
    """The factory: it runs in the worker, and so does what it returns."""
    from scipy.ndimage import gaussian_filter  # the worker has it

    def model(image, sigma):
        return {"blurred": gaussian_filter(image, float(sigma), axes=(0, 1))}

    return model


def main() -> None:
    import opexec
    from opexec import Environment, TensorSpec

    with opexec.load(
        f"{__file__}:blur",
        env=Environment(requirements=["scipy>=1.11"]),  # built once, then found in the cache
        inputs=[TensorSpec("image", "float32", ("height", "width", 3)), TensorSpec("sigma", "float32", ())],
        outputs=[TensorSpec("blurred", "float32", ("height", "width", 3))],
    ) as model:
        image = model.empty(
            "image", (1200, 1920, 3)
        )  # in shared memory: writing here is all the copying there is
        image[...] = 0
        image[600, 960] = 1

        blurred = model.infer({"image": image, "sigma": 2.0})["blurred"]  # by name, into a dict
        print("the brightest pixel is now", blurred.max().round(3), "bright")

        part = model(image[500:700, 860:1060], sigma=2.0)[
            "blurred"
        ]  # a slice, called like a function: still no copy
        assert np.allclose(part, blurred[500:700, 860:1060], atol=1e-6)

        try:
            model(image.astype("float64"), sigma=2.0)
        except opexec.SpecError as error:
            print(error)

        worker = model.workers[0]
        print(f"computed by Python {worker.python} with numpy {worker.numpy} in process {worker.pid}")


if __name__ == "__main__":
    main()
