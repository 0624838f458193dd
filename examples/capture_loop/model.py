"""Finds where a bright object is in a frame."""

import numpy as np


def track():
    def model(frame):
        bright = frame[::8, ::8, 1] > 128
        rows, columns = np.nonzero(bright)
        return {"center": np.array([rows.mean() * 8 + 4, columns.mean() * 8 + 4], np.float32)}

    return model
