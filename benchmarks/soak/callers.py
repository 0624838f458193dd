"""Threads that call one model in every way there is, and look at what comes back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import opexec
from benchmarks.soak.soaked_model import EXITS, FINE, RAISES
from benchmarks.soak.tally import Tally

#: Seconds by which a call may end after its deadline: threads wait for a core beside workers that start.
SLACK_S = 2.0
#: What a model is loaded with, for calls that say nothing else.
TIMEOUT_S = 5.0

_LARGEST = 1 << 18
_HELD = 6
_COROUTINES = 4

#: What a call may end with, by what it asked for.
_ANY_TIME = (opexec.WorkerDied, opexec.CallTimeout, opexec.Overloaded)


class Question:
    """A call: its inputs, how long it may take, and what its answer must be."""

    def __init__(self, rng: random.Random, make: Callable[[tuple[int, ...]], np.ndarray[Any, Any]]) -> None:
        size = int(2 ** rng.uniform(0, np.log2(_LARGEST)))
        shape = (size,) if rng.random() < 0.7 else (-(-size // 3), 3)
        self.tag = rng.randrange(1 << 40)
        #: Asked to raise, or to end the worker, rarely.
        self.how = rng.choices((FINE, RAISES, EXITS), (2000, 100, 1))[0]
        pause = rng.choices((0.0, 0.002, 0.1, 0.5), (80, 10, 3, 1))[0]
        self.timeout = rng.choices((TIMEOUT_S, 1.0, 0.05), (80, 15, 5))[0]
        x = make(shape)
        x[...] = rng.randrange(1 << 20)
        x.flat[-1] = size
        self.inputs = {"x": x, "tag": np.array(self.tag), "pause": np.array(pause), "how": np.array(self.how)}
        self.expected = 2 * np.asarray(x) + self.tag

    def is_answer(self, answer: Mapping[str, Any]) -> bool:
        return (
            sorted(answer) == ["tag", "y"]
            and int(answer["tag"]) == self.tag
            and np.array_equal(answer["y"], self.expected)
        )

    def difference(self, answer: Mapping[str, Any]) -> str:
        """What is wrong with an answer, in words."""
        y: Any = np.asarray(answer.get("y"))
        return (
            f"tag {answer.get('tag')}, expected {self.tag}; shape {y.shape}, expected {self.expected.shape}; asked for outcome {self.how}; "
            + (f"{int((y != self.expected).sum())} elements differ" if y.shape == self.expected.shape else "")
        )


class Caller:
    """Calls until `stop` is set; `tally` is told of each call. `typed` are errors that this caller may be given besides the usual ones."""

    def __init__(
        self,
        model: opexec.Model,
        tally: Tally,
        seed: int,
        stop: threading.Event,
        typed: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._model = model
        self._tally = tally
        self._random = random.Random(seed)
        self._stop = stop
        self._typed = (*_ANY_TIME, *typed)
        self._held: list[tuple[Question, Any]] = []

    def run(self) -> None:
        try:
            while not self._stop.is_set():
                self._random.choices(
                    (self._infer, self._infer_in_place, self._call, self._submit, self._coroutines),
                    (8, 4, 4, 4, 1),
                )[0]()
        except BaseException as error:
            self._tally.complain(f"a caller ended with {error!r}")
        finally:
            self._held.clear()

    # Ways

    def _infer(self) -> None:
        question = self._question()
        self._judge(
            "infer",
            question,
            question.timeout,
            lambda: self._model.infer(question.inputs, timeout=question.timeout),
        )

    def _infer_in_place(self) -> None:
        question = Question(self._random, lambda shape: self._model.empty("x", shape, np.int64))
        self._judge(
            "infer(empty)",
            question,
            question.timeout,
            lambda: self._model.infer(question.inputs, timeout=question.timeout),
        )

    def _call(self) -> None:
        question = self._question()
        self._judge("call", question, TIMEOUT_S, lambda: self._model(**question.inputs))

    def _submit(self) -> None:
        under_way = []
        for _ in range(self._random.randint(1, 5)):
            question = self._question()
            began = time.monotonic()
            try:
                future = self._model.submit(question.inputs, timeout=question.timeout)
            except BaseException as error:
                self._note("submit", question, error, time.monotonic() - began - question.timeout)
            else:
                ended: list[float] = []
                future.add_done_callback(lambda _, ended=ended: ended.append(time.monotonic()))  # type: ignore[misc]
                under_way.append((question, future, began, ended))
        for question, future, began, ended in under_way:
            if self._random.random() < 0.2 and future.cancel():
                if not future.cancelled():
                    self._tally.complain("a Future that said it was cancelled is not")
                self._tally.add("submit", "cancelled", 0.0)
                continue
            answer: Any
            try:
                answer = future.result(max(began + question.timeout + 10 * SLACK_S - time.monotonic(), 0))
            except concurrent.futures.TimeoutError as error:
                answer = error
                if not isinstance(error, opexec.OpexecError):
                    self._tally.complain("a Future never ended")
                    continue
            except BaseException as error:
                answer = error
            while not ended:  # `result` comes back before the callbacks are called
                time.sleep(0.0005)
            self._note("submit", question, answer, ended[0] - began - question.timeout)

    def _coroutines(self) -> None:
        asyncio.run(self._gather())

    async def _gather(self) -> None:
        await asyncio.gather(*(self._ask_async() for _ in range(_COROUTINES)))

    async def _ask_async(self) -> None:
        for _ in range(3):
            question = self._question()
            began = time.monotonic()
            task = asyncio.ensure_future(self._model.infer_async(question.inputs, timeout=question.timeout))
            cancelled = self._random.random() < 0.2
            if cancelled:
                await asyncio.sleep(self._random.choice((0, 0.001, 0.01)))
                cancelled = task.cancel()
            answer: Any
            try:
                answer = await task
            except asyncio.CancelledError as error:
                if cancelled:
                    self._tally.add("infer_async", "cancelled", 0.0)
                    continue
                answer = error
            except BaseException as error:
                answer = error
            self._note("infer_async", question, answer, time.monotonic() - began - question.timeout)

    # Judging

    def _question(self) -> Question:
        return Question(self._random, lambda shape: np.empty(shape, np.int64))

    def _judge(self, way: str, question: Question, timeout: float, ask: Callable[[], Any]) -> None:
        began = time.monotonic()
        answer: Any
        try:
            answer = ask()
        except BaseException as error:
            answer = error
        self._note(way, question, answer, time.monotonic() - began - timeout)

    def _note(self, way: str, question: Question, answer: Any, overran: float) -> None:
        if isinstance(answer, BaseException):
            outcome = type(answer).__name__
            if isinstance(answer, opexec.ModelError):
                if question.how != RAISES or "as it was told" not in answer.message:
                    self._tally.complain(f"{way}: the model was not to raise: {answer}")
            elif not isinstance(answer, self._typed):
                self._tally.complain(f"{way}: ended with {answer!r}")
            answer.__traceback__ = None
        elif question.how == FINE and question.is_answer(answer):
            outcome = "right"
            self._hold(question, answer["y"])
        else:
            outcome = "wrong"
            self._tally.complain(f"{way}: a wrong answer: {question.difference(answer)}")
        if overran > SLACK_S:
            self._tally.complain(f"{way}: a call ended {overran:.2f} s after its deadline, with {outcome}")
        self._tally.add(way, outcome, max(overran, 0.0))

    def _hold(self, question: Question, y: Any) -> None:
        """Keep some answers for a while: nothing may write into them."""
        if len(self._held) == _HELD:
            old, kept = self._held.pop(self._random.randrange(_HELD))
            if not np.array_equal(kept, old.expected):
                self._tally.complain(
                    f"the answer to call {old.tag}, which was right, changed while it was held"
                )
        self._held.append((question, y))
