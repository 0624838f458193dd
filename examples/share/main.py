"""One worker for several programs: who has the model shares it under a name, and the others attach to that name.

    python examples/share/main.py

The calls of the other programs go straight to the worker, through memory of their own: not through this process, and not through
each other's. `opexec up models.toml` does what the first half of this program does, and `opexec ps` lists what is shared.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

import opexec

MODEL = Path(__file__).with_name("model.py")


def other_program() -> None:
    with opexec.attach("example-share") as model:
        out = model.infer({"x": np.arange(4.0)})
        print(
            f"attached: {out['doubled'].tolist()}, call {out['calls']} of worker {out['worker']}", flush=True
        )
        try:
            model.infer({"y": np.zeros(1)})
        except opexec.ModelError as error:
            print(f"its mistake is its own: {error.type}", flush=True)


def main() -> None:
    with opexec.load(f"{MODEL}:counter", name="counter") as model:
        first = model.infer({"x": np.ones(2)})
        print(f"owner:    {first['doubled'].tolist()}, call {first['calls']} of worker {first['worker']}")
        with model.share("example-share") as share:
            for _ in range(2):
                subprocess.run([sys.executable, __file__, "attach"], check=True)
            print(f"calls in all: {share.describe()['calls']}")
        last = model.infer({"x": np.ones(2)})
        print(f"the same worker for all: {int(last['worker']) == int(first['worker'])}, call {last['calls']}")
    try:
        opexec.attach("example-share")
    except opexec.LoadError as error:
        print(f"when it has ended: {str(error).partition(' (')[0]}")


if __name__ == "__main__":
    other_program() if sys.argv[1:] == ["attach"] else main()
