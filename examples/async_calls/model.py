"""A model that takes its time, as large ones do."""

import time

import numpy as np


def powers():
    def model(matrix):
        time.sleep(0.05)  # stands for work on a device
        return {"result": np.linalg.matrix_power(matrix, 8)}

    return model
