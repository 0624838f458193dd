"""A capture loop that copies no frame: the camera writes where the model reads.

    python examples/capture_loop/main.py

Two frames lie in shared memory. While the model looks at one, the camera fills the other. A real camera is asked the same way, to
write into an array that is there already: `capture.read(frame)` with OpenCV, `stream.readinto(frame)` with anything that reads.
"""

from pathlib import Path

import numpy as np

import opexec
from opexec import TensorSpec

MODEL = Path(__file__).with_name("model.py")
HEIGHT, WIDTH, FRAMES = 1200, 1920, 60


class Camera:
    """Stands for a camera: draws a bright square that moves 8 pixels to the right and 4 down with every frame."""

    def __init__(self) -> None:
        self.count = 0

    def read(self, frame: np.ndarray) -> None:
        frame.fill(16)
        top, left = 100 + 4 * self.count, 200 + 8 * self.count
        frame[top : top + 160, left : left + 160] = 240
        self.count += 1


def main() -> None:
    camera = Camera()
    specs = [TensorSpec("frame", "uint8", ("height", "width", 3))]
    with opexec.load(f"{MODEL}:track", inputs=specs) as model:
        frames = [model.empty("frame", (HEIGHT, WIDTH, 3)) for _ in range(2)]
        camera.read(frames[0])
        for number in range(FRAMES):
            answer = model.submit({"frame": frames[number % 2]})
            camera.read(frames[(number + 1) % 2])  # meanwhile; never into the frame that the model looks at
            row, column = answer.result()["center"]
            if number % 20 == 0:
                print(f"frame {number}: object at row {row:.0f}, column {column:.0f}")
        stats = model.stats()
        print(
            f"{stats.calls} frames of {frames[0].nbytes:,} bytes: {stats.bytes_copied_in:,} input bytes copied"
        )

        # A part of such an array needs no copy either if it is contiguous: rows, here.
        upper = frames[0][: HEIGHT // 2]
        model.infer({"frame": upper})
        print(f"the upper half: {model.stats().bytes_copied_in:,} input bytes copied")

        # An array from anywhere else works too, with one copy.
        model.infer({"frame": np.array(frames[0])})
        print(f"a numpy array: {model.stats().bytes_copied_in:,} input bytes copied")


if __name__ == "__main__":
    main()
