"""What became of the calls."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field, fields

_COMPLAINTS_KEPT = 20


@dataclass
class Tally:
    """Counts of calls by way and of outcomes by kind; `overran` is the most, in seconds, by which a call ended after its deadline.

    `complaints` says how promises were broken, the first of them in words; `broken` counts them all. Any thread may add.
    """

    calls: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    overran: float = 0.0
    broken: int = 0
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, way: str, outcome: str, overran: float) -> None:
        with self._lock:
            self.calls[way] += 1
            self.outcomes[outcome] += 1
            self.overran = max(self.overran, overran)

    def complain(self, complaint: str) -> None:
        with self._lock:
            self.broken += 1
            if len(self.complaints) < _COMPLAINTS_KEPT:
                self.complaints.append(complaint)

    def merge(self, other: Tally) -> None:
        with self._lock:
            self.calls += other.calls
            self.outcomes += other.outcomes
            self.overran = max(self.overran, other.overran)
            self.broken += other.broken
            self.complaints = (self.complaints + other.complaints)[:_COMPLAINTS_KEPT]

    def to_json(self) -> str:
        with self._lock:
            return json.dumps({one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Tally:
        told = json.loads(text)
        return cls(
            Counter(told["calls"]),
            Counter(told["outcomes"]),
            told["overran"],
            told["broken"],
            told["complaints"],
        )
