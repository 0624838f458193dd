"""What a platform hands to the conformance suite: small models, written by the framework that runs them. Python >= 3.7.

A file ``<name>_models.py`` beside this one plugs a framework in. It is imported in the framework's own environment, after `opexec.workers` became
importable as in a worker, and has

    SUBJECTS  {name: make}: ``make(folder)`` writes a model into the folder (a str) and returns a `Subject`. Each model takes one input
              of float32 [n, 4], which is called `x` where inputs have names, and gives ``x @ WEIGHTS + BIAS``, or says otherwise.
    DTYPES    optional, {dtype: taken}: what a call with such an input does: True if it is answered, False if it is refused by a TypeError
              that names the input and the dtype. What is not in it is not tested.
    echo      needed for DTYPES: ``echo(folder, dtype)`` returns a `Subject` that gives its input back, whose shape has two axes of any size.
    echoes    needed where a model takes inputs of one dtype alone: ``echoes(folder, dtypes)`` returns a `Subject` that has an input of each and gives it
              back, and ``{dtype: (name of the input, name of the output)}``. "string" is among the dtypes where there is
    TEXTS     optional: what gives texts back, "string" (str) or "bytes" (UTF-8).
    VERSIONS  optional, {framework: version}, for a framework that no module is named after.
    BAD       optional, {name: make}: ``make(folder)`` writes what looks like a model and is none; returns
              ``(framework, platform, source, options)``, the framework as `Platform.framework` calls it.

`groups.py` tells which file runs in which environment, and what its subjects are called.
"""

import numpy as np

#: Small whole numbers, so that every framework gets the very same float32.
WEIGHTS = np.array([[1, -2, 3], [0, 4, -1], [2, 1, 5], [-3, 2, 1]], np.float32)
BIAS = np.array([10, -20, 30], np.float32)


def rows(count, columns=4):
    """Inputs of float32 [count, columns], no two of them equal."""
    return np.arange(count * columns, dtype=np.float32).reshape(count, columns) % 50 - 20


def affine(x):
    return x @ WEIGHTS + BIAS


class Subject:
    """One model.

    `platform`, `source` and `options` are what the model is loaded by; `source` is an absolute path, or one with a factory.
    `direct` is the model called without opexec: ``direct(x)`` gives a numpy array, computed by the framework itself.
    `input` is the input's name in a call by name. `output` is what `Model.infer` calls the output.
    `inputs` and `outputs` are the specs that the file carries, as `Platform.inputs` has them; None if it carries none.
    `exact`: whether the answer is ``affine(x)`` to the last bit; otherwise it is what `direct` says, to 1e-6 of it.
    `empty`: whether the framework takes a batch of no rows; otherwise it must raise.
    `wrong` is an input that makes the framework raise.
    """

    def __init__(
        self,
        platform,
        source,
        direct,
        options=None,
        input="x",
        output="output",
        inputs=None,
        outputs=None,
        exact=True,
        empty=True,
        wrong=None,
    ):
        self.platform = platform
        self.source = source
        self.direct = direct
        self.options = dict(options or {})
        self.input = input
        self.output = output
        self.inputs = inputs
        self.outputs = outputs
        self.exact = exact
        self.empty = empty
        self.wrong = rows(2, 7) if wrong is None else wrong
