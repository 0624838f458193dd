"""One model, called from many threads; and Futures, which need no thread of the caller's.

    python examples/threads/main.py

Answers never cross, whoever asks and in whatever order. The model holds its own interpreter's lock while it works, not the caller's.
"""

import importlib.util
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

import opexec

MODEL = Path(__file__).with_name("model.py")
CALLS = 40


def plain_function() -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("model", MODEL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.checksum()


def main() -> None:
    random = np.random.default_rng(11)
    data = [random.integers(0, 256, 1 + n) for n in range(CALLS)]
    function = plain_function()
    expected = [function(values)["checksum"] for values in data]

    with opexec.load(f"{MODEL}:checksum") as model, ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda values: model.infer({"values": values}), data)
        print(
            f"8 threads:  {sum(int(a['checksum']) == e for a, e in zip(answers, expected))} of {CALLS} right"
        )

        futures = {model.submit({"values": values}): want for values, want in zip(data, expected)}
        right = sum(int(future.result()["checksum"]) == futures[future] for future in as_completed(futures))
        print(f"{CALLS} Futures: {right} of {CALLS} right")

        # A Future leaves this thread free. Here both work at once.
        future = model.submit({"values": random.integers(0, 256, 2_000_000)})
        mine = 0
        while not future.done():
            mine += 1
        print(
            f"the caller worked on while the model did: {mine > 0}; {future.result()['checksum'].dtype} came back"
        )


if __name__ == "__main__":
    main()
