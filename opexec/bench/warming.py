"""When a model is warm.

Calls are taken in windows of at least 50 ms and three calls. The model is warm when two windows in a row brought nothing new: neither of
their medians is more than 5 % below the least median of the windows before, of which there must be two or more. So warming up lasts
for four windows at least, and as long as calls keep getting faster; it does not wait for a noisy machine to become quiet. It
ends after a limit all the same, and then the report says that no steady state was seen.
"""

from __future__ import annotations

import statistics

WINDOW_SECONDS = 0.05
WINDOW_CALLS = 3
GAIN = 0.05
_BEFORE = 2
_QUIET = 2


class WarmUp:
    """Is told the time of each call, and says whether the model is warm."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.warm = False
        self._medians: list[float] = []
        self._window: list[float] = []
        self._window_seconds = 0.0

    def add(self, seconds: float) -> bool:
        """One more call; whether the model is warm now."""
        self.calls += 1
        self.seconds += seconds
        self._window.append(seconds)
        self._window_seconds += seconds
        if len(self._window) >= WINDOW_CALLS and self._window_seconds >= WINDOW_SECONDS:
            self._medians.append(statistics.median(self._window))
            self._window, self._window_seconds = [], 0.0
            self.warm = self._is_warm()
        return self.warm

    def _is_warm(self) -> bool:
        before, last = self._medians[:-_QUIET], self._medians[-_QUIET:]
        return len(before) >= _BEFORE and min(last) >= (1 - GAIN) * min(before)
