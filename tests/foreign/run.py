"""Run the tests of ipc and workers in whatever interpreter executes this file: ``python -I tests/foreign/run.py [pytest arguments]``.

The two packages become importable as in a worker, by ``workers/bootstrap.py``: as `opexec.ipc` and `opexec.workers`, with nothing
else of opexec and nothing of the clone on the path. Python >= 3.7.
"""

import importlib.util
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def install_as_in_a_worker():
    spec = importlib.util.spec_from_file_location("bootstrap", os.path.join(ROOT, "workers", "bootstrap.py"))
    bootstrap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bootstrap)
    bootstrap.install(ROOT)


def main(arguments):
    sys.dont_write_bytecode = (
        True  # -I ignores the environment, and these folders belong to another interpreter
    )
    install_as_in_a_worker()
    import pytest

    return pytest.main(
        [
            "--rootdir=" + ROOT,
            "--config-file=" + os.path.join(ROOT, "pyproject.toml"),
            "--override-ini=pythonpath=",  # the clone stays off the path
            "-Wignore::pytest.PytestConfigWarning",  # settings that the last pytest for Python 3.7 does not know yet
            "-pno:cacheprovider",
            os.path.join(ROOT, "tests", "ipc"),
            os.path.join(ROOT, "tests", "workers"),
        ]
        + arguments
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
