"""The model's side: a factory that returns a callable. It runs in the worker and imports what is installed there."""

import numpy as np

SOBEL = np.array([1, 2, 1], np.float32)


def edges():
    """Edge strength of a colour image (Sobel operator on its grey values)."""

    def model(image):
        grey = image.mean(axis=2, dtype=np.float32)
        smooth_rows = sum(weight * grey[i : grey.shape[0] - 2 + i] for i, weight in enumerate(SOBEL))
        smooth_columns = sum(weight * grey[:, i : grey.shape[1] - 2 + i] for i, weight in enumerate(SOBEL))
        strength = np.hypot(
            smooth_rows[:, 2:] - smooth_rows[:, :-2], smooth_columns[2:] - smooth_columns[:-2]
        )
        return {"strength": strength, "strongest": strength.max()}

    return model
