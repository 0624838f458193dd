"""Where results lie: what is foreseen of the next one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import opexec
from opexec.connection import Connection, registry
from opexec.ipc.turns import turns
from tests.loaded import source


@pytest.mark.parametrize("size", [64, 1 << 17, 1 << 20, 6 << 20])
def test_the_next_result_is_foreseen_whether_blocks_take_turns_or_not(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.arange(size, dtype=np.uint8)
    with opexec.load(source("echo")) as model:
        connection = registry.known()[-1]
        assert isinstance(connection, Connection)
        outputs, lend, late = connection.outputs, connection.outputs.lend, []

        def counted(*arguments: Any) -> Any:
            late.append(arguments)
            return lend(*arguments)

        monkeypatch.setattr(outputs, "lend", counted)
        for _ in range(3 * turns(size, 4 << 20) + 10):
            model.infer({"x": x})
        assert late, "the first ones cannot be"
        late.clear()
        for _ in range(100):
            np.testing.assert_array_equal(model.infer({"x": x})["x"], x)
        assert not late
