"""Packages of the platforms that Neuropod has not: onnx, jax, keras, sklearn, torch, caffe2, tensorrt.

``0/config.json``: `model`, the file or folder in ``0/data``; or, for torch and jax, `entrypoint_package` and `entrypoint` of a function in
``0/code`` that is called with the data path. `options` are those of the platform. `inputs` and `outputs` say what the model calls the
tensors of the package's specs, where the names differ.
"""

from __future__ import annotations

import os

from opexec.workers import platforms
from opexec.workers.platforms.packaged import Wrapped, by_name, text_array, texts_of

#: Options that name a file: in 0/data.
_PATHS = ("state_dict",)


def load(contents):
    settings = contents.settings
    options = dict(settings.get("options") or {}, **contents.known_options())
    for name in _PATHS:
        if name in (settings.get("options") or {}):
            options[name] = os.path.join(contents.data, options[name])
    _load_ops(contents)
    if "entrypoint" in settings:
        model = _from_entry_point(contents, options)
    else:
        model = platforms.load(contents.platform, os.path.join(contents.data, settings["model"]), options)
    return Model(model, contents)


def _load_ops(contents):
    if not contents.custom_ops:
        return
    if contents.platform != "torch":
        raise ValueError("a package of the platform {} can have no custom ops".format(contents.platform))
    import torch

    for path in contents.custom_ops:
        torch.ops.load_library(path)


def _from_entry_point(contents, options):
    from opexec.workers.platforms import package_entry

    with package_entry.factory(contents) as source:
        return platforms.load(contents.platform, source, options)


class Model(Wrapped):
    def __init__(self, model, contents):
        super().__init__(model)
        self._specs = contents.inputs
        self._outputs = [spec["name"] for spec in contents.outputs]
        self._texts = texts_of(contents.outputs)
        self._takes = contents.settings.get("inputs") or {}
        gives = contents.settings.get("outputs") or {}
        self._gives = {gives.get(name, name): name for name in self._outputs}

    def bind(self, args, kwargs):
        given = by_name(self._specs, args, kwargs)
        return self._model.bind([], {self._takes.get(name, name): array for name, array in given.items()})

    def run(self, bound, reserve):
        result = self._model.run(bound, reserve)
        if isinstance(result, dict):
            if not self._texts and list(result) == self._outputs and list(self._gives) == self._outputs:
                return result  # what was reserved must stay the very dict
            missing = [name for name in self._gives if name not in result]
            if missing:
                raise TypeError("the model gave {}; expected {!r} too".format(sorted(result), missing[0]))
            named = {name: result[inner] for inner, name in self._gives.items()}
        else:
            values = [result] if self._is_one(result) else list(result)
            if len(values) != len(self._outputs):
                raise TypeError(
                    "the model gave {} outputs; the package's output_spec has {}".format(
                        len(values), self._outputs
                    )
                )
            named = dict(zip(self._outputs, values))
        return {name: text_array(one) if name in self._texts else one for name, one in named.items()}

    def _is_one(self, result):
        """Whether a result is one output: a list is several, but for the texts of a model that has one output."""
        if not isinstance(result, (list, tuple)):
            return True
        return len(self._outputs) == 1 and bool(self._texts) and _holds_texts(result)


def _holds_texts(listed):
    """Whether nested lists hold texts, or nothing."""
    if isinstance(listed, (list, tuple)):
        return all(_holds_texts(one) for one in listed)
    return isinstance(listed, (str, bytes))
