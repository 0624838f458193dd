"""One layer of a network in numpy."""

import numpy as np


def network():
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    return lambda x: {"scores": np.maximum(x @ weights, 0)}
