"""Model packages: one folder, or one zip file, with a model, its specs, what it needs and how to check it.

    config.json             name, platform, specs, versions of the framework, environment
    manifest.json           optional: the SHA-256 of each file
    test_data.pkl           optional: inputs and outputs; a pickle, and so read in workers only, never here
    0/config.json           settings of the platform
    0/data/                 weights, graphs, assets
    0/code/                 Python packages (platform python)
    0/ops/                  shared libraries named in custom_ops
    0/requirements.lock     optional: pinned requirements

The layout is Neuropod's. `read` checks a package from the outside and describes it; nothing is unpacked and no code of it runs.
`Package.folder` gives its files on disk. docs/packages.md is the guide; `packages.draft.Draft` writes packages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .errors import BuildError, PackageError
from .packages import cache as package_cache
from .packages.cache import Progress
from .packages.config import PackageConfig, parse_config
from .packages.environment import PackageEnvironment
from .packages.files import Files, Limits, ZipFiles, open_files
from .packages.files import read as read_file
from .packages.manifest import NAME as MANIFEST
from .packages.manifest import compare, content_hash, parse_manifest
from .packages.platform_config import DATA as DATA
from .packages.platform_config import PLATFORM_CONFIG as PLATFORM_CONFIG
from .packages.platform_config import parse_platform_config
from .packages.semver import VersionRange
from .spec import TensorSpec

__all__ = ["Limits", "Package", "PackageConfig", "PackageEnvironment", "VersionRange", "is_package", "read"]

CONFIG = "config.json"
CODE = "0/code"
OPS = "0/ops"
REQUIREMENTS_LOCK = "0/requirements.lock"
TEST_DATA = "test_data.pkl"

# Where these platforms' models lie: one of the files must be there.
_MODELS = {
    "tensorflow": tuple(
        f"{DATA}/{name}" for name in ("model.pb", "savedmodel/saved_model.pb", "savedmodel/saved_model.pbtxt")
    ),
    "torchscript": (f"{DATA}/model.pt",),
}


@dataclass(frozen=True)
class Package:
    """What a package says of itself. Made by `read`; a value, though what it describes may change on disk."""

    path: Path
    """The folder or zip, absolute."""
    is_zip: bool
    config: PackageConfig
    files: Mapping[str, int] = field(hash=False)
    """Bytes of each file by its name."""
    requirements_lock: str | None
    """The text of ``0/requirements.lock``."""
    limits: Limits
    _platform_config: str
    _signature: str
    """What `Files.signature` said when it was read."""

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def platform(self) -> str:
        return self.config.platform

    @property
    def platform_version_semver(self) -> str:
        return self.config.platform_version_semver

    @property
    def versions(self) -> VersionRange:
        """`platform_version_semver` as a range: ``"1.15.5" in package.versions``."""
        return self.config.versions

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.config.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.config.outputs

    @property
    def input_tensor_device(self) -> Mapping[str, str]:
        """ "CPU" or "GPU" for each input."""
        return self.config.input_tensor_device

    @property
    def custom_ops(self) -> tuple[str, ...]:
        """Names of files in ``0/ops``."""
        return self.config.custom_ops

    @property
    def environment(self) -> PackageEnvironment | None:
        """What the package asks for, apart from `requirements_lock`; `environment_arguments` has both."""
        return self.config.environment

    @property
    def platform_config(self) -> dict[str, Any]:
        """``0/config.json``, as `parse_platform_config` describes it; a copy."""
        content: dict[str, Any] = json.loads(self._platform_config)
        return content

    @property
    def size(self) -> int:
        """Bytes of all files, unpacked."""
        return sum(self.files.values())

    @property
    def has_manifest(self) -> bool:
        return MANIFEST in self.files

    @property
    def has_test_data(self) -> bool:
        return TEST_DATA in self.files

    def folder(self, progress: Progress = None) -> Path:
        """The folder with the package's files: its own, or, for a zip, one in the cache, unpacked when it is first asked for.

        A manifest is verified, once for each state of the files. Threads and processes may ask at the same time. `progress` is called with
        a text a step. The files belong to everybody who runs this package: nothing may be written there.

        Raises PackageError (a broken zip, files that the manifest does not have, a package that changed since it was read), after which
        nothing is left on disk; BuildError where the cache cannot be written to.
        """
        if self.is_zip:
            return package_cache.unpack(self.path, self.limits, json.loads(self._signature), progress).folder
        with self._open() as files:
            if self.has_manifest:
                hashes = package_cache.file_hashes(files, keep=False)
                package_cache.check_manifest(files, hashes)
                package_cache.file_hashes(files, known=hashes)
        return self.path

    def data_folder(self, progress: Progress = None) -> Path:
        """``0/data`` on disk; it is not there where the package has no data. Raises what `folder` raises."""
        return self.folder(progress) / DATA

    def hash(self) -> str:
        """A SHA-256 over the names and contents of all files: equal for a folder and for every zip of it.

        Reads all files, unless they were read before and have not changed. Raises PackageError.
        """
        with self._open() as files:
            return content_hash(package_cache.file_hashes(files))

    def archive_hash(self) -> str | None:
        """The SHA-256 of the zip file, as ``sha256sum`` prints it; None for a folder. Raises PackageError."""
        with self._open() as files:
            return package_cache.archive_hash(files) if isinstance(files, ZipFiles) else None

    def verify(self) -> None:
        """Read every file, whatever was found before, and hold it against the manifest and, in a zip, its CRC.

        Raises PackageError that names each file which is changed, missing or not listed; or says that there is no manifest.
        """
        from .packages.manifest import hash_files

        with self._open() as files:
            hashes = hash_files(files)
            text = read_file(files, MANIFEST)
        if text is None:
            raise PackageError(
                "is missing, so nothing tells whether the files are as they were written",
                package=str(self.path),
                file=MANIFEST,
            )
        compare(parse_manifest(text, str(self.path)), hashes, str(self.path))

    def environment_arguments(self, folder: Path | None = None) -> dict[str, Any] | None:
        """Keyword arguments for `opexec.Environment`; None where the package asks for no environment.

        They are those of the key ``environment``, and what ``0/requirements.lock`` has pinned is among the requirements. (Such a file names
        what the model's author asked for and what that needs, not numpy nor the framework, so it is no lock of a whole environment. One
        with hashes is: it is given as `lock`.) `folder`: where the package's files are; by default `Package.folder` is asked.

        Raises PackageError, and what `folder` raises.
        """
        if self.environment is None and self.requirements_lock is None:
            return None
        where = folder if folder is not None else self.folder()
        arguments = {} if self.environment is None else self.environment.arguments(where)
        if self.requirements_lock is not None:
            path = where / REQUIREMENTS_LOCK
            if "--hash" in self.requirements_lock:
                arguments["lock"] = str(path)
            else:
                _merge(arguments, self._pinned(path))
        return arguments

    def _pinned(self, path: Path) -> dict[str, Any]:
        from .environments import requirements_file

        try:
            return requirements_file.read(path)
        except BuildError as error:
            raise PackageError(str(error), package=str(self.path), file=REQUIREMENTS_LOCK) from error

    def _open(self) -> Any:
        files = open_files(self.path, self.limits)
        if json.dumps(files.signature()) != self._signature:
            files.close()
            raise PackageError("was changed after it was read; read it again", package=str(self.path))
        return files


def read(
    path: str | os.PathLike[str], *, limits: Limits | None = None, platforms: tuple[str, ...] = ()
) -> Package:
    """Read what a package says of itself. Of a zip, only its directory and its small files are read.

    `limits`: how large it may be. `platforms`: names to accept beside `packages.config.PLATFORMS`.

    Raises PackageError, naming the file and the field, for whatever is broken, unsafe or contradicts itself.
    """
    limits = limits or Limits()
    where = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
    with open_files(where, limits) as files:
        text = read_file(files, CONFIG)
        if text is None:
            raise PackageError(f"is missing{_hint(files)}", package=str(where), file=CONFIG)
        config = parse_config(text, str(where), platforms)
        settings = parse_platform_config(read_file(files, PLATFORM_CONFIG), config, str(where), files.sizes)
        _check_files(config, files)
        return Package(
            path=where,
            is_zip=isinstance(files, ZipFiles),
            config=config,
            files=MappingProxyType(dict(files.sizes)),
            requirements_lock=_read_lock(files),
            limits=limits,
            _platform_config=json.dumps(settings),
            _signature=json.dumps(files.signature()),
        )


def is_package(path: str | os.PathLike[str], *, limits: Limits | None = None) -> bool:
    """Whether this is a folder or a zip that means to be a package, as against other folders and zips with a ``config.json``.

    A quick look at the ``config.json``; `read` may still refuse it. Never raises PackageError. `limits`: as of `read`; False for what is
    larger.
    """
    try:
        with open_files(Path(path), limits or Limits()) as files:
            text = read_file(files, CONFIG)
        content = None if text is None else json.loads(text)
    except (PackageError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"platform", "input_spec", "output_spec"} <= content.keys()


def _check_files(config: PackageConfig, files: Files) -> None:
    package = str(files.path)
    for name in config.custom_ops:
        if f"{OPS}/{name}" not in files.sizes:
            raise PackageError("is missing; custom_ops names it", package=package, file=f"{OPS}/{name}")
    models = _MODELS.get(config.platform, ())
    if models and not any(name in files.sizes for name in models):
        raise PackageError(
            f"is missing; a package of the platform {config.platform} has its model there",
            package=package,
            file=" or ".join(models),
        )
    text = read_file(files, MANIFEST)
    if text is not None:
        parse_manifest(text, package)


def _read_lock(files: Files) -> str | None:
    content = read_file(files, REQUIREMENTS_LOCK)
    if content is None:
        return None
    from .environments import requirements_file

    try:
        text = content.decode("utf-8")
        if "--hash" not in text:  # whoever installs from it checks the others
            requirements_file.check(text)
    except UnicodeDecodeError as error:
        raise PackageError(
            f"expected UTF-8: {error}", package=str(files.path), file=REQUIREMENTS_LOCK
        ) from None
    except BuildError as error:
        raise PackageError(str(error), package=str(files.path), file=REQUIREMENTS_LOCK) from None
    return text


def _merge(arguments: dict[str, Any], more: dict[str, Any]) -> None:
    """Add the arguments for an environment that a second file has: lists are joined, a text of the first stays."""
    for name, value in more.items():
        if isinstance(value, list):
            arguments[name] = [*arguments.get(name, ()), *value]
        else:
            arguments.setdefault(name, value)


def _hint(files: Files) -> str:
    """What to do where the package lies one folder deeper."""
    deeper = [name for name in files.sizes if name.count("/") == 1 and name.endswith(f"/{CONFIG}")]
    if len(deeper) == 1 and not deeper[0].startswith("0/"):
        folder = deeper[0].partition("/")[0]
        return f"; there is one in the folder {ascii(folder)}: is that the package?"
    return "; every package has one"
