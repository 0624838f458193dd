"""How often each small number occurs."""

import numpy as np


def histogram():
    return lambda x: np.bincount(x)
