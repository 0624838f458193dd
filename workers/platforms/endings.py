"""Files under a name with an ending, for libraries that go by it: what a file holds is told from its content here, whatever it is called."""

from __future__ import annotations

import contextlib
import os
import tempfile


@contextlib.contextmanager
def called(source, *endings):
    """The path of a file under a name with one of these endings: its own, or else that of a link to it, for the time of the context."""
    if source.endswith(endings):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="opexec-") as folder:
        link = os.path.join(folder, "model" + endings[0])
        os.symlink(os.path.abspath(source), link)
        yield link
