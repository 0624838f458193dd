"""Values of tensors out of texts and files, for the command line: ``3.5``, ``["a", "b"]``, ``@image.png``.

    number, JSON list     an array of the spec's dtype; without a spec, of the dtype that numpy has for it
    @file.npy             the array
    @file.npz             the array that is called as the input, or else the only one; ``@file.npz:key`` names another
    @file.json            what the file says, as if it were written on the command line
    @file.txt             a text; for an input of rank 1, its lines; for numbers, those that stand there
    @image                PNG, JPEG and what else Pillow reads: uint8, [height, width, 3], red, green, blue
    @sound.wav            [frames], or [frames, channels]; integers as they lie in the file (24 bits as int32), for a spec of floats
                          divided by full scale, so that they lie in [-1, 1)
    @any                  for a spec of ``bytes``: the file as it is

No pickle is read.
"""

from __future__ import annotations

import json
import os
import wave
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..calling import arrays
from ..errors import OpexecError, SpecError
from ..ipc import wire
from ..spec import TensorSpec

Array = np.ndarray[Any, Any]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_SOUNDS = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")


def value_of(text: str, spec: TensorSpec | None, name: str) -> Array:
    """The array that `text` means for the input `name`, whose spec is None where nothing is known of it.

    Raises SpecError for what the spec's dtype cannot be made of, OpexecError for a file that cannot be read.
    """
    if text.startswith("@"):
        return read(text[1:], spec, name)
    if spec is not None and spec.dtype in ("string", "bytes") and text[:1] not in ("[", '"'):
        return _from_json(text, spec, name)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if spec is None and text[:1] not in ("[", "{", '"'):
            return np.array(text)
        raise SpecError(f"input {name!r}: expected {_expected(spec)}, got {_short(text)} ({error})") from None
    return _from_json(value, spec, name)


def read(path: str, spec: TensorSpec | None, name: str) -> Array:
    """The array that a file holds for the input `name`. Raises as `value_of` does."""
    file, key = _split(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise OpexecError(f"input {name!r}: the file {file} {what}; check the path")
    ending = file.suffix.lower()
    try:
        if ending in (".npy", ".npz"):
            return with_own_dtype(_numpy(file, key, name), spec)
        if ending == ".json":
            return _from_json(json.loads(file.read_text("utf-8")), spec, name)
        if spec is not None and spec.dtype == "bytes":
            return _single(file.read_bytes(), spec)
        if ending == ".txt":
            return _text(file.read_text("utf-8"), spec, name)
        if ending in _IMAGES:
            return _image(file)
        if ending in _SOUNDS:
            return _sound(file, spec)
    except SpecError:
        raise
    except (OSError, ValueError, TypeError, EOFError, RecursionError, wave.Error) as error:
        raise _unreadable(name, file, error) from error
    except (KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(name, file, error) from error
    raise OpexecError(
        f"input {name!r}: expected a file that ends in .npy, .npz, .json, .txt, {', '.join(_IMAGES[:3])} or .wav, got {file}"
    )


def with_own_dtype(array: Array, spec: TensorSpec | None) -> Array:
    """An array out of an npy file, whose format has no bfloat16 or float8: bits of the right width get the spec's dtype back."""
    if spec is None or spec.dtype not in wire.EXTENSIONS or array.dtype.kind not in "uV":
        return array
    if array.dtype.itemsize != wire.EXTENSIONS[spec.dtype]:
        return array  # the check against the spec says what is wrong
    return np.ascontiguousarray(array).view(wire.extension_dtype(spec.dtype)).reshape(array.shape)


# ---- JSON


def _from_json(value: Any, spec: TensorSpec | None, name: str) -> Array:
    if spec is not None:
        if spec.dtype == "bytes":
            value = _encoded(value)
        return arrays.to_numpy(value, spec, name)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise SpecError(f"input {name!r}: {_short(value)} is no array: {error}") from None
    if array.dtype.kind == "O":
        raise SpecError(
            f"input {name!r}: expected a number, a text, true, false or lists of one of them, got {_short(value)}"
        )
    return array


def _encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value.encode() if isinstance(value, str) else value


def _expected(spec: TensorSpec | None) -> str:
    if spec is None:
        return "a number, a JSON list or @FILE"
    value = "a text" if spec.dtype in ("string", "bytes") else "a number"
    return f"{value}, a JSON list or @FILE for {spec!r}"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


# ---- files


def _split(path: str) -> tuple[Path, str | None]:
    """A path, and the key after the colon of ``file.npz:key``."""
    whole = Path(os.path.expanduser(path))
    place, colon, key = path.rpartition(":")
    if colon and place.lower().endswith(".npz") and not whole.exists():
        return Path(os.path.expanduser(place)), key
    return whole, None


def _numpy(file: Path, key: str | None, name: str) -> Array:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = loaded.files
        if key is None:
            key = name if name in names or len(names) != 1 else names[0]
        if key not in names:
            raise OpexecError(
                f"input {name!r}: {file} has no array {key!r}; it has {', '.join(map(repr, names)) or 'none'}. Name one: "
                f"@{file}:KEY"
            )
        array: Array = loaded[key]
        return array


def _text(text: str, spec: TensorSpec | None, name: str) -> Array:
    if spec is None or spec.dtype == "string":
        if spec is not None and spec.shape is not None and len(spec.shape) == 1:
            return arrays.to_numpy(text.splitlines(), spec, name)
        return np.array(text.removesuffix("\n"))
    wanted = spec.numpy_dtype
    if wanted is None or wanted.kind not in "iuf":
        raise SpecError(f"input {name!r}: {spec!r} cannot be made of a text file; give an .npy file")
    table = [[json.loads(word) for word in line.split()] for line in text.splitlines() if line.strip()]
    single = len(table) == 1 or all(len(row) == 1 for row in table)
    values: Any = [number for row in table for number in row] if single else table
    if spec.shape == () and len(values) == 1:
        values = values[0]
    return arrays.to_numpy(values, spec, name)


def _single(content: bytes, spec: TensorSpec) -> Array:
    array = np.empty((1,) if spec.shape is not None and len(spec.shape) == 1 else (), object)
    array[...] = content
    return array


def _image(file: Path) -> Array:
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError:
        raise OpexecError(
            f"reading {file} needs Pillow, which is not installed: pip install 'opexec[images]'"
        ) from None
    with Image.open(file) as image:
        # Cameras turn pictures by a note in the file, not by its pixels.
        upright = ImageOps.exif_transpose(image) or image
        return np.array(upright.convert("RGB"))


def _sound(file: Path, spec: TensorSpec | None) -> Array:
    samples = _pcm(file) if file.suffix.lower() == ".wav" else None
    if samples is None:
        samples = _other_sound(file)
    wanted = None if spec is None else spec.numpy_dtype
    if wanted is None or wanted.kind != "f" or samples.dtype.kind == "f":
        return samples if wanted is None or wanted.kind != "f" else samples.astype(wanted)
    if samples.dtype == np.uint8:  # 8 bits are unsigned in WAV, with silence at 128
        return ((samples.astype(np.float64) - 128) / 128).astype(wanted)
    return (samples / -float(np.iinfo(samples.dtype).min)).astype(wanted)


def _pcm(file: Path) -> Array | None:
    """Samples of a WAV file of integers; None for other kinds, such as floats."""
    try:
        with wave.open(str(file), "rb") as sound:
            channels, width = sound.getnchannels(), sound.getsampwidth()
            content = sound.readframes(sound.getnframes())
    except wave.Error as error:
        if "unknown format" in str(error) or "unknown extended format" in str(error):
            return None
        raise
    content = content[: len(content) // (channels * width) * (channels * width)]
    if width == 3:
        packed = np.frombuffer(content, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(packed), 4), np.uint8)
        wide[:, 1:] = packed
        samples: Array = wide.view("<i4").reshape(-1)
    else:
        samples = np.frombuffer(content, {1: "u1", 2: "<i2", 4: "<i4"}[width])
    samples = samples.astype(samples.dtype.newbyteorder("="))
    return samples.reshape(-1, channels) if channels > 1 else samples


_SUBTYPES: dict[str, str] = {"PCM_16": "int16", "PCM_S8": "int16", "PCM_U8": "int16", "DOUBLE": "float64"}


def _other_sound(file: Path) -> Array:
    try:
        import soundfile
    except ModuleNotFoundError:
        raise OpexecError(
            f"{file} is no WAV file of integer samples; reading it needs soundfile, which is not installed: "
            "pip install 'opexec[sound]'"
        ) from None
    try:
        subtype = soundfile.info(str(file)).subtype
        kind = _SUBTYPES.get(subtype, "int32" if subtype.startswith("PCM_") else "float32")
        samples: Array = soundfile.read(str(file), dtype=kind)[0]
    except RuntimeError as error:  # soundfile's own errors
        raise ValueError(str(error)) from error
    return samples


def _unreadable(name: str, file: Path, error: Exception) -> OpexecError:
    system = error.strerror if isinstance(error, OSError) else None
    return OpexecError(f"input {name!r}: {file} cannot be read: {system or error or type(error).__name__}")
