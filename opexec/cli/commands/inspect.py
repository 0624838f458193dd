"""`opexec inspect`"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...comparison.runner import runner_of
from .. import models, show

if TYPE_CHECKING:
    from ...package import Limits, Package

_CHUNK = 1 << 20


@click.command(
    short_help="Tell what a package or a model file holds.",
    epilog="""\b
Examples:
  opexec inspect detector.zip
  opexec inspect net.onnx --load""",
)
@click.argument("model")
@click.option("--load", "loads", is_flag=True, help="Load it too: its specs, and what runs it.")
@models.how_to_run()
@models.with_traceback
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs; sizes in bytes.")
def command(model: str, loads: bool, traceback: bool, as_json: bool, **how: Any) -> None:
    """Tell what MODEL is: a package (folder or zip), a model's file or folder, or file.py:factory.

    Nothing of it runs, unless --load is given.
    """
    from ... import package

    (asked,) = models.arguments([model], **how)
    path = os.path.abspath(os.path.expanduser(model))
    limits = asked.get("limits")
    with models.told_briefly(traceback):
        if _is_package(path, limits):
            with show.working("reading the package's files"):
                told = _package(package.read(path, limits=limits))
        else:
            told = _file(model, asked)
        if loads:
            with show.working("loading"), models.open_model(asked) as loaded:
                told |= {
                    "inputs": models.specs_json(loaded.inputs),
                    "outputs": models.specs_json(loaded.outputs),
                    "runs_in": runner_of(loaded),
                }
    if as_json:
        show.as_json(told)
    else:
        _show(told)


def _is_package(path: str, limits: Limits | None) -> bool:
    """Whether to read it as a package: so it says, or else nothing but a package would be a zip or a folder like this."""
    from ... import package
    from ...loading import formats

    if not os.path.exists(path):
        return False
    if package.is_package(path, limits=limits):
        return True
    if formats.recognise(path) is not None:
        return False
    return path.endswith(".zip") or os.path.lexists(os.path.join(path, package.CONFIG))


# ---- what there is to tell


def _package(found: Package) -> dict[str, Any]:
    environment = None if found.environment is None else found.environment.to_dict()
    return {
        "kind": "package",
        "path": str(found.path),
        "format": "zip" if found.is_zip else "folder",
        "name": found.name,
        "platform": found.platform,
        "platform_version_semver": found.platform_version_semver,
        "inputs": models.specs_json(found.inputs),
        "outputs": models.specs_json(found.outputs),
        "input_tensor_device": dict(found.input_tensor_device),
        "custom_ops": list(found.custom_ops),
        "platform_config": found.platform_config,
        "environment": environment,
        "requirements_lock": found.requirements_lock,
        "test_data": found.has_test_data,
        "manifest": _manifest(found),
        "other": dict(found.config.other),
        "size": found.size,
        "files": dict(found.files),
        "hash": found.hash(),
        "archive_hash": found.archive_hash(),
    }


def _manifest(found: Package) -> dict[str, Any]:
    """Whether there is one, whether the files are as it says, and where not, how."""
    from ...errors import PackageError

    if not found.has_manifest:
        return {"present": False, "matches": None, "problem": None}
    try:
        found.verify()
    except PackageError as error:
        return {"present": True, "matches": False, "problem": str(error)}
    return {"present": True, "matches": True, "problem": None}


def _file(model: str, asked: dict[str, Any]) -> dict[str, Any]:
    from ...loading import formats, source

    parsed = source.parse(model, asked.get("platform"))
    told: dict[str, Any] = {"kind": "model", "path": parsed.target, "platform": parsed.platform}
    if not os.path.exists(parsed.target):  # a factory
        return told | {"format": "a factory", "inputs": None, "outputs": None}
    found = formats.recognise(parsed.target)
    files = _sizes(Path(parsed.target))
    alone = stat.S_ISREG(os.stat(parsed.target).st_mode)
    return told | {
        "format": found.what if found else "not known",
        "inputs": None,
        "outputs": None,
        "size": sum(files.values()),
        "files": files,
        "hash": _sha256(parsed.target) if alone else None,
    }


def _sizes(path: Path) -> dict[str, int]:
    if path.is_file():
        return {path.name: path.stat().st_size}
    return {
        str(file.relative_to(path)): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()
    }


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()


# ---- in words


def _show(told: dict[str, Any]) -> None:
    from ... import sizes

    pairs = [("name", told["name"])] if "name" in told else []
    pairs += [("path", told["path"]), ("what", _what(told)), ("platform", _platform(told))]
    for kind in ("inputs", "outputs"):
        specs = told[kind]
        if specs is None:
            pairs.append((kind, "not known" if "runs_in" in told else "the file is not asked; --load tells"))
        else:
            pairs += _listed(kind, [_spec(entry, told) for entry in specs])
    if "runs_in" in told:
        pairs.append(("runs in", models.runner_text(told["runs_in"])))
        pairs.append(("interpreter", told["runs_in"]["interpreter"]))
    if told["kind"] == "package":
        pairs += _package_pairs(told)
    if told.get("hash"):
        pairs.append(("SHA-256", told["hash"]))
    if told.get("archive_hash"):
        pairs.append(("of the zip", told["archive_hash"]))
    files = told.get("files", {})
    if files:
        pairs += _listed("files", [f"{sizes.text(size):>9}  {name}" for name, size in files.items()])
    show.facts(pairs)


def _what(told: dict[str, Any]) -> str:
    from ... import sizes

    text = f"a package, {told['format']}" if told["kind"] == "package" else told["format"]
    return f"{text}, {sizes.text(told['size'])}" if "size" in told else str(text)


def _platform(told: dict[str, Any]) -> str:
    versions = told.get("platform_version_semver", "*")
    return (
        f"{told['platform']}, any version"
        if versions == "*" and told["kind"] == "package"
        else (f"{told['platform']} {versions}" if versions != "*" else str(told["platform"]))
    )


def _spec(entry: dict[str, Any], told: dict[str, Any]) -> str:
    from ...spec import TensorSpec

    text = models.spec_text(TensorSpec.from_dict(entry))
    device = told.get("input_tensor_device", {}).get(entry["name"]) if entry in told["inputs"] else None
    return f"{text} on {device}" if device == "CPU" else text


def _package_pairs(told: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = _listed("custom ops", told["custom_ops"]) if told["custom_ops"] else []
    settings = [
        f"{key.replace('_', ' ')} {_words(value)}" for key, value in told["platform_config"].items() if value
    ]
    pairs += _listed("settings", settings) if settings else []
    environment = told["environment"]
    if environment is None and told["requirements_lock"] is None:
        pairs.append(("environment", "the package asks for none"))
    else:
        words = [f"{key.replace('_', ' ')} {_words(value)}" for key, value in (environment or {}).items()]
        lock = told["requirements_lock"] or ""
        pinned = [line.strip() for line in lock.splitlines() if line.strip() and line.strip()[0] not in "#-"]
        pairs += _listed("environment", words + ([f"locked: {', '.join(pinned)}"] if pinned else []))
    manifest = told["manifest"]
    if not manifest["present"]:
        pairs.append(("manifest", "none"))
    else:
        pairs.append(("manifest", "every file is as it says" if manifest["matches"] else manifest["problem"]))
    pairs.append(("test data", "yes; `opexec verify` runs it" if told["test_data"] else "none"))
    return pairs


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(label: str, lines: list[str]) -> list[tuple[str, str]]:
    """Pairs for a list: the label stands before the first line alone."""
    lines = lines or ["none"]
    return [(label if index == 0 else "", line) for index, line in enumerate(lines)]
