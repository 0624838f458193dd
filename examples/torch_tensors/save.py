"""Writes a TorchScript file: ``python save.py PATH``, with any torch."""

import sys

import torch

torch.jit.trace(lambda x: (x * 2 + 1, x.norm()), torch.ones(2, 3)).save(sys.argv[1])
