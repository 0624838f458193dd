"""The files of a package, wherever they lie: in a folder or in a zip file. Both are looked at from the outside only.

`FolderFiles` and `ZipFiles` have one face: `sizes` (each file's size in bytes, by name), `read` for small files and `chunks` for large
ones. Opening either checks everything that can be checked without reading contents: names, kinds of files, sizes against `Limits`, and
in a zip that no two entries overlap. What a zip's entry really holds is checked while it is read, against its size and CRC.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ..errors import PackageError
from .names import check_names

CHUNK = 1 << 20

_GIB = 1 << 30
_LOCAL_HEADER = 30  # bytes of a zip entry's local header before its name (APPNOTE 4.3.7)
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What zipfile raises for files that are no proper zip.
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    OverflowError,
    RuntimeError,  # NotImplementedError, too: a way of packing that it does not know
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """How large a package may be. A zip can declare, and unpack to, far more than it takes on disk; raise a limit for what you trust."""

    files: int = 100_000
    """Files and folders in the package."""
    size: int = 64 * _GIB
    """Bytes of all files together, unpacked."""
    ratio: float = 100.0
    """Unpacked size over the zip's own size. It counts where the package unpacks to more than `ratio_from`."""
    ratio_from: int = _GIB // 4
    text: int = 64 << 20
    """Bytes of a file that is read as a whole: config.json, manifest.json, requirements.lock."""
    listing: int = 256 << 20
    """Bytes of a zip's central directory."""


class Files(Protocol):
    """The files of a package, open for reading."""

    path: Path
    limits: Limits

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file by its name, sorted by name. Folders are not listed."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """The file's contents, piece by piece. Raises PackageError where it cannot be read or is not what it was listed as."""

    def signature(self) -> list[Any]:
        """Plain data that changes when a file does: identity, size and times, not contents."""

    def close(self) -> None: ...


def open_files(path: Path, limits: Limits) -> FolderFiles | ZipFiles:
    """Open a package's folder or zip. Raises PackageError."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PackageError(f"expected a folder or a zip file: {reason}", package=str(path)) from None
    if stat.S_ISDIR(status.st_mode):
        return FolderFiles(path, limits)
    if stat.S_ISREG(status.st_mode):
        return ZipFiles(path, limits)
    raise PackageError("expected a folder or a zip file; it is neither", package=str(path))


def read(files: Files, name: str) -> bytes | None:
    """A small file as a whole, None where there is no such file. Raises PackageError."""
    size = files.sizes.get(name)
    if size is None:
        return None
    if size > files.limits.text:
        raise PackageError(
            f"expected at most {files.limits.text} bytes (Limits.text), got {size}",
            package=str(files.path),
            file=name,
        )
    return b"".join(files.chunks(name))


def _check_amount(package: str, sizes: Mapping[str, int], count: int, limits: Limits) -> None:
    if count > limits.files:
        raise PackageError(
            f"expected at most {limits.files} files (Limits.files), got {count}", package=package
        )
    total = sum(sizes.values())
    if total > limits.size:
        raise PackageError(
            f"expected at most {limits.size} bytes unpacked (Limits.size), got {total}; "
            "if you trust it, raise the limit: limits=Limits(size=...), or --max-unpacked on the command line",
            package=package,
        )


class FolderFiles:
    """A package that is a folder. Links and devices in it are refused; `__pycache__`, which Python leaves behind, is not part of it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self._status: dict[str, os.stat_result] = {}
        folders: list[str] = []
        try:
            self._walk(path, "", folders)
        except OSError as error:
            raise PackageError(f"cannot be read: {error}", package=str(path)) from error
        check_names(str(path), self._status, folders)
        self._sizes = {name: self._status[name].st_size for name in sorted(self._status)}
        _check_amount(str(path), self._sizes, len(self._sizes) + len(folders), limits)

    def _walk(self, folder: Path | str, prefix: str, folders: list[str]) -> None:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                status = entry.stat(follow_symlinks=False)
                if len(self._status) + len(folders) > self.limits.files:
                    return  # refused right after
                if stat.S_ISREG(status.st_mode):
                    self._status[name] = status
                elif stat.S_ISDIR(status.st_mode):
                    if entry.name == "__pycache__":
                        continue
                    folders.append(name)
                    self._walk(entry.path, name + "/", folders)
                else:
                    raise PackageError(
                        f"expected a file or folder, got {_kind(status.st_mode)}; put the file itself there",
                        package=str(self.path),
                        file=name,
                    )

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def chunks(self, name: str) -> Iterator[bytes]:
        listed = self._status[name]
        try:
            # O_NOFOLLOW and the comparison: what lies there may have been exchanged since it was listed.
            descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb", buffering=0) as file:
                if not os.path.samestat(os.fstat(descriptor), listed):
                    raise PackageError(
                        "was replaced while the package was read", package=str(self.path), file=name
                    )
                left = listed.st_size
                while chunk := file.read(CHUNK):
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise PackageError(f"cannot be read: {error}", package=str(self.path), file=name) from error
        if left:
            raise PackageError(
                "changed its size while the package was read", package=str(self.path), file=name
            )

    def signature(self) -> list[Any]:
        return [[name, *_signature(self._status[name])] for name in self._sizes]

    def close(self) -> None:
        pass

    def __enter__(self) -> FolderFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ZipFiles:
    """A package that is a zip file; only its central directory is read to open it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        try:
            # O_NONBLOCK: a named pipe put here since it was looked at must not hang the caller.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise PackageError(f"cannot be read: {error.strerror}", package=str(path)) from error
        self.file: IO[bytes] = open(descriptor, "rb")
        try:
            self.status = os.fstat(descriptor)
            if not stat.S_ISREG(self.status.st_mode):
                raise PackageError("expected a folder or a zip file; it is neither", package=str(path))
            try:
                self._zip = zipfile.ZipFile(_Bounded(self.file, limits.listing))  # type: ignore[arg-type]
            except (*_BROKEN, OSError) as error:
                raise PackageError(
                    f"expected a zip file or a folder; the zip is truncated or broken: {error}",
                    package=str(path),
                ) from None
            self._entries = self._checked(self._zip.infolist())
        except BaseException:
            self.file.close()
            raise

    def _checked(self, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        package = str(self.path)
        if len(infos) > self.limits.files:
            raise PackageError(
                f"expected at most {self.limits.files} files (Limits.files), got {len(infos)}",
                package=package,
            )
        files: list[str] = []
        folders: list[str] = []
        for info in infos:
            if info.orig_filename != info.filename:
                raise PackageError("its name holds a zero byte", package=package, file=info.orig_filename)
            if not info.filename:
                raise PackageError("an entry of the zip has no name", package=package)
            name = info.filename.removesuffix("/")
            problem = _problem_of(info)
            if problem is not None:
                raise PackageError(problem, package=package, file=info.filename)
            (folders if info.is_dir() else files).append(name)
        check_names(package, files, folders)
        plain = {info.filename: info for info in infos if not info.is_dir()}
        self._sizes = {name: plain[name].file_size for name in sorted(plain)}
        _check_amount(package, self._sizes, len(infos), self.limits)
        self._check_overlap(infos)
        self._check_ratio()
        return plain

    def _check_overlap(self, infos: list[zipfile.ZipInfo]) -> None:
        """Entries that share bytes of the archive are how a small zip declares endless contents."""
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end:
                raise PackageError(
                    "overlaps another entry of the zip", package=str(self.path), file=info.filename
                )
            end = info.header_offset + _LOCAL_HEADER + len(info.filename) + info.compress_size
        if end > self._zip.start_dir:
            raise PackageError(
                "expected its entries before its directory; the zip is truncated or broken",
                package=str(self.path),
            )

    def _check_ratio(self) -> None:
        total = sum(self._sizes.values())
        if total > self.limits.ratio_from and total > self.limits.ratio * self.status.st_size:
            raise PackageError(
                f"its {self.status.st_size} bytes unpack to {total}, more than {self.limits.ratio:g} times as much "
                f"(Limits.ratio); if you trust it, raise the limit: limits=Limits(ratio_from={total}), or --max-unpacked on the "
                "command line",
                package=str(self.path),
            )

    @property
    def sizes(self) -> Mapping[str, int]:
        return self._sizes

    def chunks(self, name: str) -> Iterator[bytes]:
        info = self._entries[name]
        left = info.file_size
        try:
            with self._zip.open(info) as file:
                while chunk := file.read(CHUNK):
                    left -= len(chunk)
                    yield chunk
        except (*_BROKEN, OSError) as error:
            raise PackageError(
                f"cannot be unpacked, the zip is broken: {error}", package=str(self.path), file=name
            ) from None
        if left:
            raise PackageError(
                f"expected {info.file_size} bytes, got {info.file_size - left}: the zip is broken",
                package=str(self.path),
                file=name,
            )

    def signature(self) -> list[Any]:
        return _signature(os.fstat(self.file.fileno()))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.close()

    def __enter__(self) -> ZipFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Bounded:
    """A file of which no single read is large: zipfile reads a whole central directory at once, however large it says it is."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._most = most
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise zipfile.BadZipFile(
                f"its directory is declared to have {size} bytes; at most {self._most} are read (Limits.listing)"
            )
        return self._file.read(size if size >= 0 else self._most)


def _problem_of(info: zipfile.ZipInfo) -> str | None:
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"expected a file or folder, got {_kind(mode)}"
    if (kind == stat.S_IFDIR and not info.is_dir()) or (
        info.is_dir() and (info.file_size or kind == stat.S_IFREG)
    ):
        return "is a file and a folder at the same time"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted; packages are not"
    if info.compress_type not in _METHODS:
        return f"expected a stored or deflated file, got the compression method {info.compress_type}"
    return None


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")


def _signature(status: os.stat_result) -> list[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
