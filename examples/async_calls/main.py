"""Calls from asyncio: the event loop runs on while models work.

    python examples/async_calls/main.py

Two models in two workers answer at the same time; one worker answers its calls one after the other, in the order they came.
"""

import asyncio
from pathlib import Path

import numpy as np

import opexec
from opexec import CallTimeout, Model

MODEL = Path(__file__).with_name("model.py")


async def ask(model: Model, number: int, seconds: float = 0.05, timeout: float | None = None) -> int:
    inputs = {"matrix": np.array([[1, number], [0, 1]]), "seconds": np.float64(seconds)}
    result = await model.infer_async(inputs, timeout=timeout)
    return int(result["result"][0, 1])  # 8 * number


async def tick(ticks: list[None]) -> None:
    """Something else that the loop has to do all the time."""
    while True:
        await asyncio.sleep(0.005)
        ticks.append(None)


async def main() -> None:
    with (
        opexec.load(f"{MODEL}:powers", name="left") as left,
        opexec.load(f"{MODEL}:powers", name="right") as right,
    ):
        ticks: list[None] = []
        ticking = asyncio.create_task(tick(ticks))
        answers = await asyncio.gather(*(ask(model, n) for n in range(6) for model in (left, right)))
        print(f"left:  {answers[::2]}")
        print(f"right: {answers[1::2]}")
        print(f"the loop went on meanwhile: {len(ticks) > 10}")

        try:
            await ask(left, 1, seconds=1, timeout=0.01)
        except CallTimeout as error:
            print(f"timeout: {error}")
        # A task that is cancelled stops waiting. The model finishes the call, and its answer is thrown away.
        waiting = asyncio.create_task(ask(right, 1, seconds=1))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait([waiting])
        print(f"cancelled: {waiting.cancelled()}")
        print(f"the next answers: {await asyncio.gather(ask(left, 5), ask(right, 6))}")
        ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
