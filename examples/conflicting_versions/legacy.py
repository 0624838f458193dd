"""Written years ago for numpy 1: `np.float` and `np.alltrue` are no longer there in numpy 2."""

import numpy as np


def cosine():
    """Cosine similarity of each row of `vectors` with `query`."""

    def model(query, vectors):
        if not np.alltrue(np.isfinite(vectors)):
            raise ValueError("vectors must be finite")
        lengths = np.sqrt((vectors**2).sum(axis=1)) * np.sqrt((query**2).sum())
        return {"similarity": (np.dot(vectors, query) / lengths).astype(np.float)}

    return model
