"""What all packagers do: write the files, try the package on its test data, and put it in place, or leave nothing."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..environment import Environment
from ..errors import OpexecError
from ..loading.load import load
from ..loading.request import Request
from ..package import OPS, REQUIREMENTS_LOCK, TEST_DATA, Package
from ..packages.config import PackageConfig
from ..packages.draft import Draft
from ..packages.environment import PackageEnvironment, parse_environment
from ..packages.test_data import check_answers, write_test_data
from ..spec import TensorSpec, parse_specs

_Path = str | os.PathLike[str]
Spec = Iterable[TensorSpec | Mapping[str, Any]]
#: Writes what a platform has into a draft; returns what ``0/config.json`` says, or None for nothing.
Fill = Callable[[Draft], Mapping[str, Any] | None]


class FailedOnTestData(ValueError, RuntimeError):
    """The model raised on its test data. Neuropod raises RuntimeError then, though its documentation says ValueError."""


def create(
    platform: str,
    fill: Fill,
    *,
    package_path: _Path | None = None,
    neuropod_path: _Path | None = None,
    model_name: str,
    input_spec: Spec,
    output_spec: Spec,
    platform_version_semver: str = "*",
    input_tensor_device: Mapping[str, str] | None = None,
    default_input_tensor_device: str = "GPU",
    custom_ops: Iterable[_Path] = (),
    package_as_zip: bool = True,
    zip_compression: int = zipfile.ZIP_STORED,
    test_input_data: Mapping[str, Any] | None = None,
    test_expected_out: Mapping[str, Any] | None = None,
    persist_test_data: bool = True,
    load_args: Mapping[str, Any] | None = None,
    environment: Environment | Mapping[str, Any] | None = None,
    requirements: str | None = None,
) -> Package:
    """Write a package; the keyword arguments are those that all packagers have.

    `package_path`, or `neuropod_path`: where it will be; nothing may be there.
    `input_spec`, `output_spec`: lists of `TensorSpec` or of dicts with name, dtype and shape.
    `platform_version_semver`: the versions of the framework that may run it, as npm writes ranges.
    `input_tensor_device`: ``"CPU"`` or ``"GPU"`` by the input's name; `default_input_tensor_device` for the others.
    `custom_ops`: paths of shared libraries, loaded before the model in this order.
    `package_as_zip`: one zip file, or a folder. `zip_compression`: of the zip: ``zipfile.ZIP_STORED``, or ``zipfile.ZIP_DEFLATED``, which takes
    longer to load.
    `test_input_data`, `test_expected_out`: arrays by name. The package is run on them in a worker, where it will run later: in its own
    environment, if it has one. `persist_test_data`: whether they go along in the package.
    `load_args`: arguments of `opexec.load` for that worker, as ``{"device": "cuda:0"}``; the package keeps nothing of them.
    `environment`: what it runs in: an `Environment`, or a dict of its arguments.
    `requirements`: text as pip takes it; the versions that are chosen now go into ``0/requirements.lock``.

    Raises ValueError (PackageError is one) for arguments that do not fit and for a wrong answer, and whatever loading and running raise.
    Nothing is left at the path, or beside it, then.
    """
    target = _target(package_path, neuropod_path)
    inputs, outputs = parse_specs(input_spec, "input") or (), parse_specs(output_spec, "output") or ()
    if test_expected_out is not None and test_input_data is None:
        raise ValueError("test_expected_out is given without test_input_data, so nothing would be tested")
    _check_device(default_input_tensor_device)
    compress = _compresses(zip_compression)
    ops = [os.fspath(path) for path in custom_ops]
    devices = {spec.name: default_input_tensor_device for spec in inputs} | dict(input_tensor_device or {})
    with Draft(target, as_zip=package_as_zip, compress=compress) as draft:
        wanted = _environment(environment, str(target))
        for path in ops:
            draft.add(f"{OPS}/{os.path.basename(path)}", path)
        settings = fill(draft)
        config = PackageConfig(
            name=model_name,
            platform=platform,
            inputs=inputs,
            outputs=outputs,
            platform_version_semver=platform_version_semver,
            custom_ops=tuple(os.path.basename(path) for path in ops),
            input_tensor_device=devices,
            environment=wanted,
        )
        draft.configure(config, settings)
        if requirements is not None:
            draft.write(REQUIREMENTS_LOCK, _locked(draft, wanted, requirements))
        if test_input_data is not None:
            _try(draft, test_input_data, test_expected_out, persist_test_data, dict(load_args or {}))
        return draft.publish()


def _target(package_path: _Path | None, neuropod_path: _Path | None) -> Path:
    given = [path for path in (package_path, neuropod_path) if path is not None]
    if len(given) != 1:
        raise ValueError("expected one of package_path and neuropod_path, which mean the same")
    return Path(os.path.abspath(os.path.expanduser(os.fspath(given[0]))))


def _check_device(device: str) -> None:
    if device not in ("CPU", "GPU"):
        raise ValueError(f"default_input_tensor_device is {device!r}; expected 'CPU' or 'GPU'")


def _compresses(zip_compression: int) -> bool:
    if zip_compression not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"zip_compression is {zip_compression!r}; expected zipfile.ZIP_STORED or zipfile.ZIP_DEFLATED, the kinds that every reader knows"
        )
    return zip_compression == zipfile.ZIP_DEFLATED


def _environment(given: Environment | Mapping[str, Any] | None, package: str) -> PackageEnvironment | None:
    if given is None:
        return None
    if isinstance(given, Environment):
        if given.lock is not None or given.conda is not None:
            raise ValueError(
                "an environment made from a lock or a conda file cannot travel in a package; give python and requirements"
            )
        if given.python is not None and os.sep in given.python:
            raise ValueError(
                f"the environment's python is {given.python!r}; a package needs a version or a range: its path means nothing elsewhere"
            )
        return PackageEnvironment.of(given)
    return parse_environment(dict(given), package, "config.json")


def _locked(draft: Draft, wanted: PackageEnvironment | None, requirements: str) -> bytes:
    """The versions of everything that an environment with these requirements has now."""
    asked = draft.path("requirements.txt")
    asked.write_text(requirements, encoding="utf-8")
    try:
        arguments = {} if wanted is None else wanted.arguments(draft.folder)
        more = Environment.from_requirements(asked)
        for name in ("requirements", "constraints", "find_links", "extra_index_urls"):
            arguments[name] = [*arguments.get(name, ()), *getattr(more, name)]
        if more.index_url is not None:
            arguments.setdefault("index_url", more.index_url)
        lock = Environment(**arguments).resolve().parents[2] / "requirements.lock"
        lines = [line for line in lock.read_text("utf-8").splitlines() if line and line[0] not in "# "]
        return ("\n".join(lines) + "\n").encode()
    finally:
        asked.unlink()


def _try(
    draft: Draft,
    inputs: Mapping[str, Any],
    expected: Mapping[str, Any] | None,
    persist: bool,
    load_args: Mapping[str, Any],
) -> None:
    package = draft.check()
    if persist:
        place = Request(source=package.path, env=load_args.get("env")).find_place(None)
        write_test_data(draft.path(TEST_DATA), inputs, expected, place.interpreter)
        package = draft.check()
    with load(package.path, **{"name": package.name, **load_args}) as model:
        try:
            wrong = check_answers(model, inputs, expected)
        except OpexecError as error:
            raise FailedOnTestData(
                f"{draft.target}: the model cannot be run on its test data: {error}"
            ) from error
    if wrong:
        raise ValueError(
            f"{draft.target}: the model's answer to its test data is not what was expected: {'; '.join(wrong)}"
        )


def exactly_one(**given: Any) -> str:
    """The name of the one argument that is not None. Raises ValueError for none or several."""
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ValueError(
            f"expected exactly one of {', '.join(given)}; got {' and '.join(names) if names else 'none'}"
        )
    return names[0]


def add_file(draft: Draft, name: str, path: _Path) -> None:
    if not os.path.exists(path):
        raise ValueError(f"there is no file or folder {os.fspath(path)}; check the path")
    draft.add(name, path)


def named(inputs: Mapping[str, str] | None, outputs: Mapping[str, str] | None) -> dict[str, Any]:
    """What ``0/config.json`` says of the model's own names."""
    given = {"inputs": dict(inputs or {}), "outputs": dict(outputs or {})}
    return {key: value for key, value in given.items() if value}
