"""What a worker may have of the machine: memory, files, priority, core dumps; checked here, set by the worker (`workers.limits`).

Memory is limited twice where the machine lets this user do so. RLIMIT_DATA makes the allocation that goes past the limit fail, which the
model's framework tells as an exception of its own, so that the worker lives on. It counts each process by itself: a control group
(`machine.memory_group`) counts what the model starts as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..memory import parse_size, text_of_size


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Raises ValueError for what cannot be a limit."""

    memory_limit: int | str | None = None
    open_files: int | None = None
    nice: int = 0
    core_dumps: bool = False

    def __post_init__(self) -> None:
        if self.memory_limit is not None:
            try:
                size = parse_size(self.memory_limit)
            except ValueError as error:
                raise ValueError(f"memory_limit: {error}") from None
            object.__setattr__(self, "memory_limit", size)
        files = self.open_files
        if files is not None and (type(files) is not int or files < _FEWEST_FILES):
            raise ValueError(
                f"open_files is {files!r}; expected how many files the worker may have open, at least {_FEWEST_FILES}, or None"
            )
        if type(self.nice) is not int or not -20 <= self.nice <= 19:
            raise ValueError(
                f"nice is {self.nice!r}; expected what is added to the caller's niceness, from -20 (first served) to 19 (last)"
            )
        if type(self.core_dumps) is not bool:
            raise ValueError(f"core_dumps is {self.core_dumps!r}; expected True or False")

    @property
    def memory(self) -> int | None:
        """Bytes of private memory."""
        return self.memory_limit  # type: ignore[return-value]

    def message(self) -> str:
        """For the worker's command line; empty where nothing is to be set."""
        told = {
            "memory": self.memory,
            "open_files": self.open_files,
            "nice": self.nice or None,
            "core": None if self.core_dumps else 0,
        }
        return ",".join(f"{name}={value}" for name, value in told.items() if value is not None)

    def hint(self) -> str:
        """What to know about a worker that has failed; empty where its memory had no limit."""
        if self.memory is None:
            return ""
        return f". It ran under memory_limit={text_of_size(self.memory)}: what would go beyond that fails, and some native code then ends its process"


# Of these, a worker's own: standard streams, control socket, segments, doorbells.
_FEWEST_FILES = 32
