"""The model that is called. Valid for Python 3.7, because opexec's worker may be one."""

from __future__ import annotations

import os
import time

FINE, RAISES, EXITS = range(3)


def soaked():
    """``y = 2 x + tag`` after `pause` seconds, and the tag; but for `how`: it raises, or its process ends."""

    def call(x, tag, pause, how):
        if pause > 0:
            time.sleep(float(pause))
        if how == RAISES:
            raise ValueError("as it was told")
        if how == EXITS:
            os._exit(7)
        return {"y": 2 * x + tag, "tag": tag}

    return call
