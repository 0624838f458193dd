"""Models in packages: each platform's own call rules, on top of the platform itself.

The source is the folder of a package, unpacked; the caller has read its two ``config.json`` and says in the options what is in them, so
that nothing is checked twice. What the rules are is in docs/packages.md.
"""

from __future__ import annotations

import fcntl
import os

from opexec.workers import platforms
from opexec.workers.platforms import Platform
from opexec.workers.platforms.texts import decoded, said_to_be_texts

_RULES = {
    "tensorflow": "packaged_tensorflow",
    "torchscript": "packaged_torchscript",
    "python": "packaged_python",
}


class Contents:
    """What a package holds, as its rules need it.

    `inputs` and `outputs` are the specs as dicts; `settings` is what ``0/config.json`` says; `custom_ops` are paths, in the order of
    loading; `devices` says ``"CPU"`` or ``"GPU"`` for each input; `options` are those of the platform (threads, device and so on).
    """

    def __init__(self, folder, told):
        self.folder = folder
        self.platform = told["platform"]
        self.inputs = told["inputs"]
        self.outputs = told["outputs"]
        self.settings = told["settings"]
        self.custom_ops = [os.path.join(folder, "0", "ops", name) for name in told["custom_ops"]]
        self.devices = told["devices"]
        self.options = told["options"]

    @property
    def data(self):
        return os.path.join(self.folder, "0", "data")

    @property
    def code(self):
        return os.path.join(self.folder, "0", "code")

    def known_options(self):
        """The options without `in_process` and `threads` where the platform has none: `opexec.load` gives them to every package."""
        unknown = set()
        if self.platform not in platforms.WITH_FACTORIES:
            unknown.add("in_process")
        if self.platform in platforms.WITHOUT_THREADS:
            unknown.add("threads")
        return {name: value for name, value in self.options.items() if name not in unknown}


def load(source, options):
    """Load the model of the package in the folder `source`. Raises what its platform raises.

    The file that the option `held` names is locked for as long as the model lives, so that nobody removes the folder.
    """
    held = _hold(options["held"])
    contents = Contents(source, options)
    rules = platforms.own(_RULES.get(contents.platform, "packaged_files"), contents.platform)
    model = rules.load(contents)
    optional = getattr(model, "optional", ())
    model.inputs = [dict(spec, optional=spec["name"] in optional) for spec in contents.inputs]
    model.outputs = contents.outputs
    model.held = held
    return model


def _hold(path):
    """The open file, whose lock goes when it is closed, however the process ends; None without a path."""
    if path is None:
        return None
    try:
        file = open(path, "rb")
        fcntl.flock(file, fcntl.LOCK_SH)
    except (
        OSError
    ):  # a sandbox, or a file system without locks: the folder stays for as long as it is used often enough
        return None
    return file


class Wrapped(Platform):
    """A platform's model under the rules of a package."""

    def __init__(self, model):
        self._model = model
        self.framework = model.framework
        self.version = model.version
        self.aligned = model.aligned

    def bind(self, args, kwargs):
        return self._model.bind(args, kwargs)

    def run(self, bound, reserve):
        return self._model.run(bound, reserve)


def by_name(specs, args, kwargs):
    """``{name: array}`` of arrays by position, which go by the order of the specs, and by name."""
    names = [spec["name"] for spec in specs]
    if len(args) > len(names):
        raise TypeError("{} inputs by position; the model's inputs are {}".format(len(args), names))
    given = dict(zip(names, args))
    twice = sorted(given.keys() & kwargs.keys())
    if twice:
        raise TypeError("the input {!r} is given by position and by name".format(twice[0]))
    given.update(kwargs)
    return given


def texts_of(specs):
    """Names of the tensors that are texts."""
    return frozenset(spec["name"] for spec in specs if spec["dtype"] == "string")


def text_array(value):
    """An output that the package says to be texts, as an array of str."""
    return said_to_be_texts(decoded(value))
