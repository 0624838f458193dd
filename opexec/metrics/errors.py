"""Failed calls of one model, by the class of their error."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from ..errors import OpexecError


class ErrorCounts:
    """Counts errors. There is no lock: a caller may be interrupted, or forked, in the middle of anything. Each count has one thread that writes it."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}

    def add(self, error: BaseException) -> None:
        """Count a call that ended with `error`. What is none of opexec's (Ctrl-C, a cancelled task) says nothing of the model and is not counted."""
        if isinstance(error, OpexecError):
            mine = type(error).__name__, threading.get_ident()
            self._counts[mine] = self._counts.get(mine, 0) + 1

    def by_type(self) -> Mapping[str, int]:
        """Name of the class, as ``"ModelError"``, -> how many calls raised it."""
        found: dict[str, int] = {}
        for (name, _), count in list(self._counts.items()):
            found[name] = found.get(name, 0) + count
        return dict(sorted(found.items()))


_Method = TypeVar("_Method", bound=Callable[..., Any])


def counted(method: _Method) -> _Method:
    """Of a method, of a model: what it raises counts in the model's `failures`. It costs a call, so it is not for the shortest way."""
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await method(self, *args, **kwargs)
            except OpexecError as error:
                self.failures.add(error)
                raise
    else:

        @functools.wraps(method)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except OpexecError as error:
                self.failures.add(error)
                raise

    return cast(_Method, call)
