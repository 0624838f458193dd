"""What a package says of itself: ``config.json``. (`platform_config` reads ``0/config.json``.)

`PackageConfig` is ``config.json`` as Python values, checked. `parse_config` reads it, `PackageConfig.to_json` writes it, and keys that
this version does not know survive both. The layout is Neuropod's (github.com/uber/neuropod), with one key added, ``environment``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import PackageError
from ..spec import TensorSpec, parse_specs
from .environment import PackageEnvironment, parse_environment
from .json import Reader, parse_json, to_json
from .names import problem_of
from .semver import VersionRange

#: Platforms that a package may name. The first three are Neuropod's.
PLATFORMS = (
    *("tensorflow", "torchscript", "python"),
    *("torch", "keras", "onnx", "jax", "sklearn", "caffe2", "tensorrt"),
)
#: Names that old packages have for a platform.
ALIASES = {"pytorch": "python"}

DEVICES = ("CPU", "GPU")

_KEYS = (
    *("name", "platform", "platform_version_semver", "input_spec", "output_spec"),
    *("custom_ops", "input_tensor_device", "environment"),
)
_LARGEST_SIZE = 2**63 - 1


@dataclass(frozen=True)
class PackageConfig:
    """The contents of a package's ``config.json``.

    Its constructor checks nothing that types say; `checked` does, and everything read from a file has passed it.
    """

    name: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    platform_version_semver: str = "*"
    custom_ops: tuple[str, ...] = ()
    """File names in ``0/ops``, in the order of loading."""
    input_tensor_device: Mapping[str, str] = field(default_factory=dict, hash=False)
    """"CPU" or "GPU" for each input; where nothing is said, "GPU"."""
    environment: PackageEnvironment | None = None
    other: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Keys that this version does not know, as they came."""

    def __post_init__(self) -> None:
        devices = {spec.name: self.input_tensor_device.get(spec.name, "GPU") for spec in self.inputs}
        extra = {name: kind for name, kind in self.input_tensor_device.items() if name not in devices}
        object.__setattr__(self, "input_tensor_device", MappingProxyType({**devices, **extra}))
        object.__setattr__(self, "other", MappingProxyType(dict(self.other)))

    @property
    def versions(self) -> VersionRange:
        """The versions of the framework that may run the model."""
        return VersionRange(self.platform_version_semver)

    def to_dict(self) -> dict[str, Any]:
        """The object in ``config.json``, with its keys in a fixed order and unknown ones last."""
        content: dict[str, Any] = {
            "name": self.name,
            "platform": self.platform,
            "platform_version_semver": self.platform_version_semver,
            "input_spec": [spec.to_dict() for spec in self.inputs],
            "output_spec": [spec.to_dict() for spec in self.outputs],
            "custom_ops": list(self.custom_ops),
            "input_tensor_device": dict(self.input_tensor_device),
        }
        if self.environment is not None:
            content["environment"] = self.environment.to_dict()
        content.update(sorted(self.other.items()))
        return content

    def to_json(self) -> bytes:
        return to_json(self.to_dict())

    def checked(self, package: str, platforms: tuple[str, ...] = ()) -> PackageConfig:
        """The same, read back from its own JSON. Raises PackageError for what `parse_config` would refuse."""
        return parse_config(self.to_json(), package, platforms)


def parse_config(text: bytes, package: str, platforms: tuple[str, ...] = ()) -> PackageConfig:
    """Read a ``config.json``. `platforms` are names to accept beside `PLATFORMS`.

    Raises PackageError that names `package`, the file and the field.
    """
    reader = Reader(package, "config.json", parse_json(text, package, "config.json"))
    inputs, outputs = (_specs(reader, f"{kind}_spec", kind) for kind in ("input", "output"))
    environment = reader.content.get("environment")
    return PackageConfig(
        name=reader.text("name"),
        platform=_platform(reader, platforms),
        inputs=inputs,
        outputs=outputs,
        platform_version_semver=_versions(reader),
        custom_ops=_custom_ops(reader),
        input_tensor_device=_devices(reader, inputs),
        environment=None if environment is None else parse_environment(environment, package, "config.json"),
        other={key: value for key, value in reader.content.items() if key not in _KEYS},
    )


# ---- fields


def _platform(reader: Reader, more: tuple[str, ...]) -> str:
    given = reader.text("platform")
    name = ALIASES.get(given, given)
    known = (*PLATFORMS, *more)
    if name not in known:
        raise reader.refused("platform", f"one of {', '.join(known)}", given)
    return name


def _versions(reader: Reader) -> str:
    text = reader.content.get("platform_version_semver", "*")
    reader.attempt("platform_version_semver", VersionRange, text)
    return str(text)


def _specs(reader: Reader, key: str, kind: str) -> tuple[TensorSpec, ...]:
    found = []
    for index, entry in enumerate(reader.list(key)):
        place = f"{key}[{index}]"
        if not isinstance(entry, dict):
            raise reader.refused(place, "an object with name, dtype and shape", entry)
        found.append(parse_spec(Reader(reader.package, reader.file, entry, f"{place}.")))
    specs = reader.attempt(key, parse_specs, found, kind)
    return tuple(specs)


def parse_spec(entry: Reader) -> TensorSpec:
    """One tensor's spec. Keys beside name, dtype and shape are ignored, as Neuropod does."""
    name, dtype, shape = entry.text("name"), entry.text("dtype"), entry.required("shape")
    if shape is not None and not isinstance(shape, list):
        raise entry.refused("shape", "a list, or null where the shape is not checked", shape)
    for axis, dim in enumerate(shape or ()):
        size = isinstance(dim, int) and not isinstance(dim, bool) and 0 < dim <= _LARGEST_SIZE
        if not (size or dim is None or (isinstance(dim, str) and dim)):
            raise entry.refused(f"shape[{axis}]", "a positive size, a symbol, or null for any size", dim)
    # First the dtype alone, so that what is wrong with it is not said of the shape.
    entry.attempt("dtype", TensorSpec, name, dtype, None)
    spec: TensorSpec = entry.attempt("shape", TensorSpec, name, dtype, shape)
    return spec


def _custom_ops(reader: Reader) -> tuple[str, ...]:
    names = reader.texts("custom_ops")
    for index, name in enumerate(names):
        if "/" in name or problem_of(name) is not None:
            raise reader.refused(f"custom_ops[{index}]", "the name of a file in 0/ops", name)
        if name in names[:index]:
            raise reader.refused(f"custom_ops[{index}]", "each name once", name)
    return names


def _devices(reader: Reader, inputs: tuple[TensorSpec, ...]) -> dict[str, str]:
    content = reader.content.get("input_tensor_device", {})
    if not isinstance(content, dict):
        raise reader.refused("input_tensor_device", "an object of input names and devices", content)
    names = [spec.name for spec in inputs]
    for name, device in content.items():
        if name not in names:
            raise PackageError(
                f"is no input; the inputs are {', '.join(map(repr, names)) or 'none'}",
                package=reader.package,
                file=reader.file,
                field=f"input_tensor_device.{name}",
            )
        if device not in DEVICES:
            raise reader.refused(f"input_tensor_device.{name}", '"CPU" or "GPU"', device)
    return content
