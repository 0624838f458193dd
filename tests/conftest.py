"""What all tests share. Runs on Python 3.7 too, where tests/foreign runs the tests of ipc and workers."""

import gc
import os
import signal
import threading

import hypothesis
import pytest

# The same examples in every run, and no deadline: how long an example takes says nothing about right or wrong.
hypothesis.settings.register_profile("opexec", derandomize=True, deadline=None)
hypothesis.settings.load_profile("opexec")

# A shell that starts something in the background has it ignore Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_collection():
    """No garbage collection in this test: what an interruption raises within one is told as unraisable, and interrupts nothing."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def pytest_configure(config):
    # Older Hypothesis looks for what refers to its own source of random numbers, and sees no frozen object (below).
    config.addinivalue_line("filterwarnings", "ignore:It looks like `register_random`")


@pytest.fixture
def descriptors(no_collection):
    """Tells which descriptors are open. None of those that former tests have left is closed meanwhile, by whatever ends so late."""
    for thread in threading.enumerate():
        if thread.name.startswith("opexec-collector"):  # it stays for a second, and what it sees to as well
            thread.join()
    return lambda: set(os.listdir("/proc/self/fd"))


def pytest_collection_modifyitems(items):
    """Quick tests first, so that what is broken shows at once."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_collection_finish():
    """What imports and collection made lives to the end: no collection need walk over it again, as each would for some 0.2 s."""
    gc.collect()
    gc.freeze()
