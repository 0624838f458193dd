"""One call of `IsolatedModel.infer_async`: the event loop goes on while it waits for a worker, copies much, is sent, or waits for the answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..connection.calls import Again, Call
from ..supervision.link import Link
from ..threads import aside
from .array_kinds import ArrayKind
from .steps import time_left

if TYPE_CHECKING:
    from ..isolated import IsolatedModel

#: From so many bytes on, inputs are copied in a thread for an event loop: it takes longer than to hand it over.
_ASIDE = 1 << 20


async def infer(
    model: IsolatedModel,
    names: tuple[str, ...],
    values: list[Any],
    outputs: Sequence[str] | None,
    deadline: float | None,
) -> dict[str, Any]:
    """The results, of whichever worker there is. `deadline` is by `time.monotonic`."""
    replicas, tries = model.replicas, model.retries
    while True:
        link = replicas.try_claim()
        if link is None:
            await _wait(model, deadline)
            continue
        try:
            call, kind = await _run(model, link, names, values, deadline, tries)
            return model._results(link, call, kind, outputs)
        except Again as again:
            tries -= again.sent
        finally:
            replicas.unclaim(link)


async def _wait(model: IsolatedModel, deadline: float | None) -> None:
    """Wait for a worker, while the event loop goes on."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BaseException | None] = loop.create_future()

    def wake(error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(error)

    def tell(error: BaseException | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
            loop.call_soon_threadsafe(wake, error)

    model.replicas.startup.when_done(tell, deadline)
    error = await ended
    if error is not None:
        raise error


def _size(value: Any) -> int:
    """Bytes; 0 for what is no array."""
    size = getattr(value, "nbytes", 0)
    return size if isinstance(size, int) else 0


def _copied(model: IsolatedModel, link: Link, values: list[Any]) -> int:
    """How many bytes a call with these inputs copies, about."""
    large = [value for value in values if _size(value) >= _ASIDE // 64]
    copied = sum(value.nbytes for value in large)
    if copied >= _ASIDE and all(type(value) is np.ndarray for value in large):
        outside, _ = model._input_memory.find(large, link.aligned)
        copied -= sum(large[place].nbytes for place in outside)
    return copied


async def _prepare_aside(
    model: IsolatedModel, link: Link, names: tuple[str, ...], values: list[Any], timeout: float | None
) -> tuple[Call, ArrayKind | None]:
    """`_prepare`, in a thread: a large copy would keep the event loop from all else."""
    fate: dict[int, Call | None] = {}

    def prepare() -> tuple[Call, ArrayKind | None]:
        prepared = model._prepare(link, names, values, 0, timeout)
        if fate.setdefault(0, prepared[0]) is None:
            link.connection.calls.abandon(prepared[0])
        return prepared

    try:
        return await aside(prepare)
    except asyncio.CancelledError:
        call = fate.setdefault(0, None)
        if call is not None:
            link.connection.calls.abandon(call)
        raise


async def _run(
    model: IsolatedModel,
    link: Link,
    names: tuple[str, ...],
    values: list[Any],
    deadline: float | None,
    tries: int,
) -> tuple[Call, ArrayKind | None]:
    """`_prepare`, send, and wait for the answer."""
    loop = asyncio.get_running_loop()
    if _copied(model, link, values) < _ASIDE:
        call, kind = model._prepare(link, names, values, 0, time_left(deadline))
    else:
        call, kind = await _prepare_aside(model, link, names, values, time_left(deadline))
    call.deadline = deadline
    connection, reader = link.connection, link.loop_reader()
    ended: asyncio.Future[None] = loop.create_future()
    sent: asyncio.Future[BaseException | None] | None = None
    timer = None

    def expire() -> None:
        if sent is None or sent.done():
            connection.expire(call)
        else:
            sent.set_result(connection.unheard())

    call.finish = _finish(loop, ended)
    try:
        sent = reader.sender.send(call)
        reader.add(call)
        if deadline is not None:
            timer = loop.call_later(deadline - time.monotonic() + 0.001, expire)
        if sent is not None:
            error = await sent
            if error is not None:
                raise error
        await ended
    except BaseException as error:
        connection.calls.abandon(call)
        if not call.id:
            model._recover(link, call, error)
        raise
    finally:
        if timer is not None:
            timer.cancel()
        reader.remove(call)
    if call.failure is not None:
        model._recover(link, call, call.failure, tries)
        raise call.failure
    return call, kind


def _finish(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> Callable[[Call], None]:
    """What is told, in whichever thread, that a call has ended, and tells `ended`."""
    here = threading.get_ident()

    def wake() -> None:
        if not ended.done():
            ended.set_result(None)

    def finish(call: Call) -> None:
        if threading.get_ident() == here:
            wake()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and its coroutines with it
                loop.call_soon_threadsafe(wake)

    return finish
