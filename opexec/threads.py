"""Work for threads of a pool. Pools take none once the interpreter is exiting: then whoever has the work does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")

#: How a pool's error begins that has not taken the work.
_NOT_TAKEN = "cannot schedule new futures"


def side_by_side(do: Callable[[_Thing], object], things: Sequence[_Thing], name: str) -> None:
    """Do it for each of the things, at the same time where that can be; back when all is done. Raises what the first that failed raised."""
    here: list[_Thing] = []
    started: list[Future[object]] = []
    with ThreadPoolExecutor(max(len(things), 1), thread_name_prefix=name) as pool:
        for thing in things:
            try:
                started.append(pool.submit(do, thing))
            except RuntimeError as error:
                _check_not_taken(error)
                here.append(thing)
    for thing in here:
        do(thing)
    for one in started:
        one.result()


async def aside(do: Callable[..., _Result], *arguments: Any) -> _Result:
    """Do it in a thread, while the event loop goes on."""
    try:
        done = asyncio.get_running_loop().run_in_executor(None, do, *arguments)
    except RuntimeError as error:
        _check_not_taken(error)
        return do(*arguments)
    return await done


def _check_not_taken(error: RuntimeError) -> None:
    if _NOT_TAKEN not in str(error):
        raise error
