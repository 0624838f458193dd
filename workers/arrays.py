"""What a framework needs to know of an array before it looks at its memory."""

from __future__ import annotations

import numpy as np


def native(array):
    """The array itself if it is C-contiguous and of the machine's byte order, else a copy that is.

    Arrays over shared memory always are; in the caller's own process an input may be anything.
    """
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # An array of rank 0 is always contiguous, so it never gets here, where it would become one of rank 1.
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def address(array):
    """Where the elements of an array begin, as an int."""
    return array.__array_interface__["data"][0]
