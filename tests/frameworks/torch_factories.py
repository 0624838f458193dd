"""Factories of torch modules, loaded as ``torch_factories.py:affine``. Python >= 3.7; runs in the environment of a torch.

The modules hold zeros or the suite's numbers: weights from a file replace the zeros.
"""

import os
import sys

import torch

sys.path.append(os.path.dirname(os.path.abspath(__file__)))

from subject import BIAS, WEIGHTS


class Affine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        # Wrong answers, unless the platform switches the module to evaluation.
        self.dropout = torch.nn.Dropout(0.9)

    def forward(self, x):
        return self.dropout(self.layer(x))


def filled(module):
    with torch.no_grad():
        module.layer.weight.copy_(torch.from_numpy(WEIGHTS.T.copy()))
        module.layer.bias.copy_(torch.from_numpy(BIAS))
    return module


def affine():
    return filled(Affine())


def zeros():
    module = Affine()
    with torch.no_grad():
        module.layer.weight.zero_()
        module.layer.bias.zero_()
    return module


def echo():
    return lambda x: x
