"""A model that takes its time, as large ones do."""

import time

import numpy as np


def powers():
    def model(matrix, seconds):
        time.sleep(float(seconds))  # stands for work on a device
        return {"result": np.linalg.matrix_power(matrix, 8)}

    return model
