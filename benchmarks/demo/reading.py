"""From a picture of one line of text to what the model takes, and from what it gives to the text.

The recogniser (PP-OCRv3, an SVTR network trained with CTC loss: Graves et al., 2006) takes float32 of shape (lines, 3, 48, width) between -1 and 1
and gives, for every 8 pixels of width, the probability of each of 6,625 classes: none (0), 6,623 characters, and the space.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

PICTURE = Path(__file__).with_name("picture.png")
HEIGHT = 48


def pixels() -> npt.NDArray[np.float32]:
    """The picture, as the model takes it."""
    with Image.open(PICTURE) as picture:
        line = picture.convert("RGB").resize(
            (round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.BILINEAR
        )
    channels = np.asarray(line, np.float32)[:, :, ::-1].transpose(2, 0, 1)  # blue, green, red
    return (channels / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def characters(model: Path) -> list[str]:
    """What each class stands for; the model's file says it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return ["", *session.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]


def text(probabilities: npt.NDArray[Any], characters: list[str]) -> str:
    """The most probable class at each place, with repetitions and then blanks left out."""
    best = probabilities[0].argmax(axis=1)
    begins = np.concatenate([[True], best[1:] != best[:-1]])
    return "".join(characters[index] for index in best[begins]).strip()
