"""`opexec run`"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from ...comparison.runner import runner_of
from .. import models, show

if TYPE_CHECKING:
    from ...model import Model

_SMALL = 24  # elements of an output that is shown in full
_INDENT = 4


@click.command(
    short_help="Run a model once, on inputs from files and numbers.",
    epilog="""\b
Examples:
  opexec run net.onnx --input x=@image.npy
  opexec run adder.zip --input x=3.5 --input y='[1, 2]' --output sum.npz
  opexec run listen.py:make --platform torch --env torch14 --input sound=@hello.wav

An input is a number, a JSON list, a text, or the file after an @: .npy, .npz (or .npz:KEY), .json, .txt, an image as uint8
[height, width, 3], or a .wav file's samples.""",
)
@click.argument("model")
@click.option(
    "--input", "-i", "inputs", metavar="NAME=VALUE", multiple=True, help="An input. Can be repeated."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the outputs to this .npz file, whose arrays are called like them.",
)
@models.how_to_run()
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Call it so many times, and tell the latency of these calls, after the first one.",
)
@models.with_traceback
@click.option(
    "--json", "as_json", is_flag=True, help="As JSON, for programs; outputs whole, times in seconds."
)
def command(
    model: str,
    inputs: tuple[str, ...],
    output: Path | None,
    repeat: int,
    traceback: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Load MODEL (a package, a model's file or folder, or file.py:factory) into a worker and call it.

    Numbers, lists and texts become arrays of the dtypes in the model's spec.
    """
    from ...files import output_file

    given = models.pairs(inputs, "--input", "NAME=VALUE")
    (asked,) = models.arguments([model], **how)
    if output is not None and output.suffix != ".npz":
        raise click.BadParameter(f"expected a name that ends in .npz, got {output}", param_hint="--output")
    with models.told_briefly(traceback):
        began = time.perf_counter()
        with show.working("loading"):
            opened = models.open_model(asked)
        with opened:
            loading = time.perf_counter() - began
            arrays = _read(opened, given)
            outputs, seconds = _call(opened, arrays, repeat)
            if output is not None:
                output_file.write(output, outputs)
            runner = runner_of(opened)
    if as_json:
        show.as_json(_told(outputs, loading, seconds, runner))
        return
    for name, array in outputs.items():
        _show(name, array)
    first, *later = seconds
    ran = f"ran in {models.runner_text(runner)}: loaded in {models.duration(loading)}, first call {models.duration(first)}"
    show.note(f"{ran}{_latency(later)}")
    if output is not None:
        show.note(f"wrote {output}")


def _read(model: Model, given: dict[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    from ...files import input_files

    specs = {spec.name: spec for spec in model.inputs or ()}
    return {name: input_files.value_of(text, specs.get(name), name) for name, text in given.items()}


def _call(
    model: Model, arrays: dict[str, np.ndarray[Any, Any]], repeat: int
) -> tuple[dict[str, Any], list[float]]:
    seconds = []
    outputs: dict[str, Any] = {}
    for _ in range(repeat):
        began = time.perf_counter()
        outputs = model.infer(arrays)
        seconds.append(time.perf_counter() - began)
    return outputs, seconds


# ---- in words


def _show(name: str, value: Any) -> None:
    array = np.asarray(value)
    print(f"{name}: {_dtype(array)}{list(array.shape)}{_summary(array)}")
    if array.size <= _SMALL:
        text = _full(array)
        print("\n".join(" " * _INDENT + line for line in text.splitlines()))


def _dtype(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.kind == "O":
        return "bytes" if all(isinstance(element, bytes) for element in array.flat) else "string"
    from ...dtypes import canonical_dtype
    from ...errors import SpecError

    try:
        return canonical_dtype(array.dtype)
    except SpecError:
        return str(array.dtype)


def _full(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.kind in "OUS":
        return repr(array.tolist())
    return np.array2string(array, max_line_width=96, threshold=_SMALL, floatmode="maxprec")


def _summary(array: np.ndarray[Any, Any]) -> str:
    """Range and mean of many numbers; what is not finite is counted apart."""
    if array.size <= 1 or array.dtype.kind not in "iuf":
        return ""
    finite = array if array.dtype.kind != "f" else array[np.isfinite(array)]
    strange = array.size - finite.size
    text = ""
    if finite.size:
        mean = finite.mean(dtype=np.float64)
        text = f"  min {finite.min():.6g}, mean {mean:.6g}, max {finite.max():.6g}"
    return text + (f"  {strange} not finite" if strange else "")


def _latency(seconds: list[float]) -> str:
    if not seconds:
        return ""
    p50, p99 = np.percentile(seconds, [50, 99])
    return f", then {len(seconds)} more: p50 {models.duration(p50)}, p99 {models.duration(p99)}, least {models.duration(min(seconds))}"


def _told(
    outputs: dict[str, Any], loading: float, seconds: list[float], runner: dict[str, Any]
) -> dict[str, Any]:
    told = {}
    for name, value in outputs.items():
        array = np.asarray(value)
        told[name] = {"dtype": _dtype(array), "shape": list(array.shape), "data": _plain(array)}
    return {"outputs": told, "loading": loading, "calls": seconds, "runs_in": runner}


def _plain(array: np.ndarray[Any, Any]) -> Any:
    """The elements as JSON has them: what is no number there, and bytes, as texts."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if isinstance(value, float):
            return value if np.isfinite(value) else str(value)
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        return value if isinstance(value, bool | int | str) or value is None else str(value)

    return plain(array.tolist())
