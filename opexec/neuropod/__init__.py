"""Neuropod's Python API on opexec, so that a program changes its imports alone:

from opexec.neuropod import loader, packagers      # was: from neuropod import loader, packagers
from opexec.neuropod.loader import load_neuropod   # was: from neuropod.loader import load_neuropod

docs/neuropod.md lists where else Neuropod's functions are here.
"""

from . import loader, packagers

__all__ = ["loader", "packagers"]
