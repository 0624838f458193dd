"""jax models: a factory that makes a function of jax arrays, or a file of jax.export.

jax takes a numpy array's own memory for its array where the elements begin at a multiple of 64 bytes, as all that callers send does;
that such an array sees what is written there later is not promised by jax, so it is checked for each place, and where jax copied it copies
anew for each run. Results are copied once, by the worker.
"""

from __future__ import annotations

import os

import jax

from opexec.ipc import wire
from opexec.workers.arrays import address, native
from opexec.workers.platforms import Platform
from opexec.workers.platforms.arguments import check_options, cuda_index
from opexec.workers.platforms.python import is_factory, made
from opexec.workers.platforms.texts import are_texts

#: Kinds that jax takes only with 64-bit types switched on; otherwise it would make them smaller without a word.
_WIDE = ("int64", "uint64", "float64", "complex128")


def load(source, options):
    """Load ``"file.py:factory"`` or ``"package.module:factory"``, or a file with what `jax.export.Exported.serialize` gave.

    The factory returns a callable that takes jax arrays. It is jitted, unless it is already, or the option `jit` is False. Other
    options: `device`, ``"cpu"`` or ``"cuda:N"``; `threads`, how many XLA computes with on the CPU, which takes effect if jax was not used
    in this process before.

    Raises RuntimeError for a file that this jax cannot read, ValueError for options that do not fit, and whatever the factory raises.
    """
    check_options("jax", options, ("jit", "device", "threads"), factory=True)
    set_threads(options)
    if not is_factory(source):
        if "jit" in options:
            raise ValueError("the option jit is for a factory; {} is compiled in any case".format(source))
        from opexec.workers.platforms.jax_export import Exported

        return Exported(source, device_of(options))
    model = made(source, options)
    # What is jitted has `lower`, and jitting it again would lose its static arguments.
    if options.get("jit", True) and not hasattr(model, "lower"):
        model = jax.jit(model)
    return Model(model, device_of(options))


def set_threads(options):
    """Let XLA compute on the CPU with as many threads as the option `threads` says, unless it was used in this process before."""
    if options.get("threads"):
        os.environ["NPROC"] = str(options["threads"])  # XLA's CPU client sizes its pool by it when it is made


class Model(Platform):
    framework = "jax"
    version = jax.__version__

    def __init__(self, call, device):
        self.aligned = device.platform == "cpu"
        self._call = call
        self._device = device
        self._there = caller(device)

    def bind(self, args, kwargs):
        return Bound(
            [placed(place, array, self._device) for place, array in enumerate(args)],
            {name: placed(name, array, self._device) for name, array in kwargs.items()},
        )

    def run(self, bound, reserve):
        args, kwargs = bound.arguments()
        return self._there(self._call, args, kwargs)  # turned into numpy's arrays, it is waited for


def caller(device):
    """``call(function, args, kwargs)``: what the function makes without saying where lies on `device`, as its inputs do."""
    is_first = jax.devices()[0] == device

    def call(function, args, kwargs):
        # In a worker jax would choose the same; to say so for each call takes longer than many a model.
        if is_first and jax.config.jax_default_device is None:
            return function(*args, **kwargs)
        with jax.default_device(device):
            return function(*args, **kwargs)

    return call


class Bound:
    """The arguments of a call: jax arrays over the inputs' memory, and `Copied` ones, which are copied anew for each run."""

    def __init__(self, args, kwargs):
        self._args = args
        self._kwargs = kwargs
        self._as_they_are = not any(type(one) is Copied for one in args + list(kwargs.values()))

    def arguments(self):
        if self._as_they_are:
            return self._args, self._kwargs
        return [_value(one) for one in self._args], {name: _value(one) for name, one in self._kwargs.items()}


class Copied:
    """An input that jax cannot look at where it lies."""

    def __init__(self, array, device):
        self.array = array
        self.device = device


def _value(given):
    # A copy of our own: jax's could still be under way when the call is over.
    return jax.device_put(given.array.copy(), given.device) if type(given) is Copied else given


def placed(name, array, device):
    """What a jax function takes for the input `name`. Raises TypeError for what jax has no array of."""
    kind = wire.extension_name(array.dtype)
    if array.dtype.kind not in "biufc" and (kind is None or array.dtype.names is not None):
        raise TypeError(
            "input {!r} is {}; jax has arrays of numbers and bools alone: pass numbers, or use a Python factory with the python "
            "platform".format(name, "text" if are_texts(array.dtype) else kind or array.dtype)
        )
    if array.dtype.name in _WIDE and not jax.config.jax_enable_x64:
        raise TypeError(
            "input {!r} is {}, which jax would cut down to 32 bits: convert it, or switch 64-bit types on with "
            "env_vars={{'JAX_ENABLE_X64': '1'}}".format(name, array.dtype.name)
        )
    array = native(array)
    if device.platform == "cpu" and array.size and address(array) % 64 == 0:
        try:
            over = jax.device_put(array, device)
            if over.unsafe_buffer_pointer() == address(array):
                return over
        except (TypeError, ValueError, RuntimeError) as error:
            raise _refused(name, array, error) from error
    try:
        jax.device_put(array[:0] if array.ndim else array, device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _refused(name, array, error) from error
    return Copied(array, device)


def _refused(name, array, error):
    return TypeError(
        "input {!r}: jax {} makes no array of {}: {}".format(name, jax.__version__, array.dtype.name, error)
    )


def device_of(options):
    """The jax device that the option `device` names; the CPU without one."""
    index = cuda_index(options)
    if index is None:
        return jax.devices("cpu")[0]
    try:
        found = jax.devices("cuda")
    except RuntimeError as error:
        raise RuntimeError(
            "the device {!r} was asked for, and jax {} has none of that kind: {} Ask for device='cpu', or give the model an "
            "environment with jax for this GPU: Environment(requirements=['jax[cuda12]'])".format(
                options["device"], jax.__version__, str(error).strip().partition("\n")[0]
            )
        ) from None
    if index >= len(found):
        raise RuntimeError(
            "the device {!r} was asked for, and jax sees {} of that kind".format(
                options["device"], len(found)
            )
        )
    return found[index]
