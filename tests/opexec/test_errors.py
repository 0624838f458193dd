"""Errors go to other processes, as results of a process pool do, and come whole."""

from __future__ import annotations

import pickle

import pytest

from opexec import errors
from tests.failures import ONE_OF_EACH


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_pickled(error: errors.OpexecError) -> None:
    error.add_note("noted")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.args == error.args
    told = {name: value for name, value in vars(error).items() if name != "failures"}
    assert told == {name: value for name, value in vars(again).items() if name != "failures"}


def test_every_error_is_tried() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds - {errors.OpexecError} == {type(error) for error in ONE_OF_EACH}
