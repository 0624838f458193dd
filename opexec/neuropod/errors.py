"""opexec's errors as programs written for Neuropod catch them: there whatever fails in a call or in loading is a RuntimeError.

What `opexec.neuropod` raises is of the class that opexec raises and of the built-in one, so either ``except`` clause finds it.
"""

from __future__ import annotations

from typing import Any

from ..errors import OpexecError, rebuilt

Kinds = tuple[type[Exception], ...]

_JOINED: dict[tuple[type[OpexecError], Kinds], type[OpexecError]] = {}


def also(error: OpexecError, *kinds: type[Exception]) -> OpexecError:
    """The same error, of the built-in classes `kinds` too: with its message, its attributes, its traceback and what led to it."""
    if all(isinstance(error, kind) for kind in kinds):
        return error
    made = _rebuilt(type(error), kinds, error.args, error.__dict__)
    made.__cause__, made.__context__ = error.__cause__, error.__context__
    made.__suppress_context__ = error.__suppress_context__
    return made.with_traceback(error.__traceback__)


def _rebuilt(
    kind: type[OpexecError], kinds: Kinds, args: tuple[Any, ...], attributes: dict[str, Any]
) -> OpexecError:
    return rebuilt(_joined(kind, kinds), args, attributes)


def _joined(kind: type[OpexecError], kinds: Kinds) -> type[OpexecError]:
    """`kind`, of `kinds` too, under its own name; one class for all errors of it."""

    def reduced(self: OpexecError) -> tuple[object, ...]:
        return _rebuilt, (kind, kinds, self.args, self.__dict__)  # nobody finds the class by its name

    if (kind, kinds) not in _JOINED:
        missing = [one for one in kinds if not issubclass(kind, one)]
        about = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        joined = type(kind.__name__, (kind, *missing), {**about, "__reduce__": reduced})
        _JOINED.setdefault((kind, kinds), joined)
    return _JOINED[kind, kinds]
