"""A model that fails on demand."""

import os
import sys
import time


def fragile():
    def model(x):
        if x.max() > 100:
            raise ValueError("values above 100 make no sense")
        if x.min() < 0:
            print("about to crash", file=sys.stderr)
            os.abort()  # as a bug in native code would
        if x.sum() == 0:
            time.sleep(60)
        return {"mean": x.mean()}

    return model
