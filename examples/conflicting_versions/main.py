"""Two models whose packages cannot live together, side by side in one program.

    python examples/conflicting_versions/main.py

`legacy.py` needs numpy below 1.24, `modern.py` needs numpy 2. Each gets an environment, built once and then kept in the cache. Any
other packages work alike: tensorflow 1 and 2, two versions of torch, an old scikit-learn for an old pickle.
"""

from pathlib import Path

import numpy as np

import opexec
from opexec import Environment, TensorSpec

HERE = Path(__file__).parent
OLD = Environment(python="3.9", requirements=["numpy<1.24"])
NEW = Environment(requirements=["numpy>=2"])  # on the Python that runs this
SPECS = {
    "inputs": [TensorSpec("query", "float64", ("d",)), TensorSpec("vectors", "float64", ("n", "d"))],
    "outputs": [TensorSpec("similarity", "float64", ("n",))],
}


def main() -> None:
    random = np.random.default_rng(7)
    inputs = {"query": random.normal(size=64), "vectors": random.normal(size=(1000, 64))}

    with (
        opexec.load(f"{HERE / 'legacy.py'}:cosine", env=OLD, **SPECS) as legacy,
        opexec.load(f"{HERE / 'modern.py'}:cosine", env=NEW, **SPECS) as modern,
    ):
        answers = []
        for model in (legacy, modern):
            similarity = model.infer(inputs)["similarity"]
            best = int(similarity.argmax())
            worker = model.workers[0]
            print(
                f"{model.name}: Python {worker.python}, numpy {worker.numpy}: best is {best} at {similarity[best]:.6f}"
            )
            answers.append(similarity)
        print(f"the answers agree: {np.allclose(*answers, rtol=1e-12)}")

    # The other way round neither can run.
    for file, env in (("legacy.py", NEW), ("modern.py", OLD)):
        with opexec.load(f"{HERE / file}:cosine", env=env, **SPECS) as model:
            try:
                model.infer(inputs)
            except opexec.ModelError as error:
                print(
                    f"{file} with numpy {model.workers[0].numpy}: {error.type}: {error.message.splitlines()[0]}"
                )


if __name__ == "__main__":
    main()
