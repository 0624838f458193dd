"""Writing packages: a draft is filled, tried, and then appears at its path at once, or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import PackageError
from ..files import caches
from ..package import CONFIG, DATA, PLATFORM_CONFIG, Package, read
from .cache import SETTLED_NS
from .config import PackageConfig
from .files import CHUNK, FolderFiles, Limits, open_files
from .json import to_json
from .manifest import NAME as MANIFEST
from .manifest import hash_file, write_manifest
from .names import problem_of
from .zip import write_zip


class Draft:
    """A package being written, in a folder beside the path where it will be.

        with Draft("model.zip") as draft:
            draft.add("0/data/model.pt", "/tmp/traced.pt")
            draft.configure(PackageConfig(name="adder", platform="torchscript", inputs=..., outputs=...))
            package = draft.check()      # complete, and readable: run its test data now
            draft.publish()              # manifest.json is written, and the package appears

    Leaving the block without `publish`, by an error or not, leaves nothing behind. Nothing that exists is ever overwritten: `target` is
    refused at once where something is there, and again at the end.

    `as_zip`: one zip file, or a folder. `compress`: see `packages.zip.write_zip`. `manifest`: whether to write one. `limits`, `platforms`:
    as for `package.read`, which every draft must pass.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        *,
        as_zip: bool = True,
        compress: bool = False,
        manifest: bool = True,
        limits: Limits | None = None,
        platforms: tuple[str, ...] = (),
    ) -> None:
        self.target = Path(os.path.abspath(os.path.expanduser(os.fspath(target))))
        self.as_zip = as_zip
        self.compress = compress
        self.manifest = manifest
        self.limits = limits or Limits()
        self.platforms = platforms
        self.folder = caches.scratch_beside(self.target)
        """Where the files go. `path`, `write` and `add` put them there; so may anybody else."""
        self._known: dict[
            str, tuple[list[Any], str]
        ] = {}  # hashes of files, with what tells that they have not changed

    def __enter__(self) -> Draft:
        self._refuse_existing()
        try:
            self.folder.mkdir()
        except OSError as error:
            raise self._unwritten(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._speak_of_target(error)
        if os.path.lexists(self.folder):
            shutil.rmtree(self.folder)

    def path(self, name: str) -> Path:
        """Where to write the file `name` (``"0/data/model.pb"``); its folder is made. Raises PackageError for a bad name."""
        problem = problem_of(name)
        if problem is not None:
            raise PackageError(problem, package=str(self.target), file=name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: bytes) -> None:
        """Write a small file. Raises PackageError."""
        try:
            self.path(name).write_bytes(content)
        except OSError as error:
            raise self._unwritten(error, name) from error

    def add(self, name: str, source: str | os.PathLike[str]) -> None:
        """Copy a file or a folder. What a link leads to is copied; ``__pycache__`` and ``*.pyc`` are left out.

        Raises PackageError, naming the source that cannot be read, or `name` if it is there already.
        """
        target = self.path(name)
        if os.path.lexists(target):
            raise PackageError("is there already", package=str(self.target), file=name)
        try:
            if os.path.isdir(source):
                shutil.copytree(
                    source,
                    target,
                    ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
                    copy_function=shutil.copyfile,
                )
            else:
                shutil.copyfile(source, target)
        except (OSError, shutil.Error) as error:
            raise PackageError(
                f"{os.fspath(source)} cannot be copied: {error}", package=str(self.target), file=name
            ) from error

    def configure(self, config: PackageConfig, platform_config: Mapping[str, Any] | None = None) -> None:
        """Write ``config.json`` and, if given, ``0/config.json``. Raises PackageError for a value that `read` would refuse."""
        config.checked(str(self.target), self.platforms)
        self.write(CONFIG, config.to_json())
        if platform_config is not None:
            self.write(PLATFORM_CONFIG, to_json(platform_config))

    def check(self) -> Package:
        """Read the draft back. The package that it returns is a folder that `publish` will move: run it, but do not keep it.

        Empty folders are removed, for a zip would have none: what is tried is what will be there.
        """
        self._remove_empty_folders()
        self._write_manifest()
        return read(self.folder, limits=self.limits, platforms=self.platforms)

    def publish(self) -> Package:
        """Put the package at its path, in one step, and read it from there. Raises PackageError."""
        self.check()
        self._refuse_existing()
        try:
            if self.as_zip:
                self._publish_zip()
            else:
                self._publish_folder()
        except OSError as error:
            raise self._unwritten(error) from error
        return read(self.target, limits=self.limits, platforms=self.platforms)

    def _remove_empty_folders(self) -> None:
        for folder, _, _ in os.walk(self.folder, topdown=False):
            if folder not in (os.fspath(self.folder), os.fspath(self.folder / DATA)) and not os.listdir(
                folder
            ):
                os.rmdir(folder)

    def _write_manifest(self) -> None:
        (self.folder / MANIFEST).unlink(missing_ok=True)
        if self.manifest:
            with FolderFiles(self.folder, self.limits) as files:
                self.write(MANIFEST, write_manifest(self._hashes(files)))

    def _hashes(self, files: FolderFiles) -> dict[str, str]:
        """Large files are read once, however often the draft is checked, unless they change."""
        hashes = {}
        for name, *signature in files.signature():
            known = self._known.get(name)
            if known is not None and known[0] == signature:
                hashes[name] = known[1]
                continue
            hashes[name] = hash_file(files, name)
            if time.time_ns() - max(signature[-2:]) > SETTLED_NS:
                self._known[name] = (signature, hashes[name])
        return hashes

    def _publish_zip(self) -> None:
        archive = caches.scratch_beside(self.target)
        try:
            with open(archive, "xb") as output, FolderFiles(self.folder, self.limits) as files:
                write_zip(files, output, self.compress)
            try:
                os.link(archive, self.target)  # unlike a rename, it never replaces
            except FileExistsError:
                self._refuse_existing()
                raise
            except OSError:  # a file system without hard links
                self._refuse_existing()
                os.rename(archive, self.target)
        finally:
            archive.unlink(missing_ok=True)

    def _publish_folder(self) -> None:
        for folder, _, _ in os.walk(self.folder, topdown=False):
            if folder.endswith("__pycache__"):  # of a model that was tried
                shutil.rmtree(folder)
        os.rename(self.folder, self.target)  # fails where something is there, but for an empty folder

    def _speak_of_target(self, error: BaseException) -> None:
        """Let an error name the path that the user gave, where it names the folder, which is gone when it is read."""
        place, target = os.fspath(self.folder), os.fspath(self.target)
        error.args = tuple(one.replace(place, target) if isinstance(one, str) else one for one in error.args)
        if isinstance(error, PackageError):
            error.package = error.package.replace(place, target)

    def _unwritten(self, error: OSError, name: str | None = None) -> PackageError:
        return PackageError(
            f"cannot be written: {error.strerror} ({self.target.parent})", package=str(self.target), file=name
        )

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.target):
            raise PackageError("exists already; remove it, or choose another path", package=str(self.target))


def repack(
    package: Package,
    target: str | os.PathLike[str],
    *,
    config: PackageConfig | None = None,
    as_zip: bool = True,
    compress: bool = False,
    manifest: bool = True,
) -> Package:
    """Write a package anew: as a zip or a folder, with a manifest, maybe with another `config`; all other files stay as they are.

    A ``config.json`` that is not changed keeps its very bytes. A manifest that the package has is verified first. Raises PackageError.
    """
    platforms = (package.platform,)
    draft = Draft(
        target,
        as_zip=as_zip,
        compress=compress,
        manifest=manifest,
        limits=package.limits,
        platforms=platforms,
    )
    with draft:
        if package.has_manifest:
            package.verify()
        with open_files(package.path, package.limits) as files:
            for name in files.sizes:
                try:
                    with open(draft.path(name), "wb", buffering=CHUNK) as output:
                        output.writelines(files.chunks(name))
                except OSError as error:
                    raise draft._unwritten(error, name) from error
        (draft.folder / DATA).mkdir(parents=True, exist_ok=True)  # as `cache` has it of a zip
        if config is not None:
            draft.configure(config)
        return draft.publish()
