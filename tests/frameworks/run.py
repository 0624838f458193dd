"""Run cases in whatever interpreter executes this file: ``python -I tests/frameworks/run.py onnx_cases.py [pytest arguments]``.

Like tests/foreign/run.py: opexec.ipc and opexec.workers are imported as in a worker, and nothing else of opexec. Python >= 3.7.
"""

import importlib.util
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))


def main(cases, *arguments):
    sys.dont_write_bytecode = (
        True  # -I ignores the environment, and these folders belong to another interpreter
    )
    spec = importlib.util.spec_from_file_location("foreign", os.path.join(ROOT, "tests", "foreign", "run.py"))
    foreign = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(foreign)
    foreign.install_as_in_a_worker()
    import pytest

    return pytest.main(
        [
            "--rootdir=" + ROOT,
            "--config-file=" + os.path.join(ROOT, "pyproject.toml"),
            "--override-ini=pythonpath=",  # the clone stays off the path
            "-Wignore::pytest.PytestConfigWarning",  # settings that the last pytest for Python 3.7 does not know yet
            "-Wignore:`torch.jit",  # that it is deprecated
            "-pno:cacheprovider",
            os.path.join(HERE, cases),
        ]
        + list(arguments)
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
