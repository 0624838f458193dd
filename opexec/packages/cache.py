"""Unpacked packages, kept in the cache, so that a zip is unpacked once on a machine.

    <cache>/packages/<SHA-256 of the zip>/tree/           its files, read-only
    <cache>/packages/<SHA-256 of the zip>/contents.json   size and SHA-256 of each, written before the folder gets this name
    <cache>/packages/<SHA-256 of the zip>/used            its time is that of the last use; locked, shared, by each worker that runs the package
    <cache>/packages/<SHA-256 of the zip>.lock            held by whoever unpacks; gone when it has
    <cache>/packages/.<SHA-256 of the zip>.<random>/      being unpacked
    <cache>/packages/hashes/                              hashes of files that have not changed since

A folder appears under its hash by one rename, complete and checked. Whoever unpacks holds the lock; a second process waits and then
shares. One that is killed leaves a folder with a dot, which the next one to unpack anything removes. `packages.cleanup` removes what
nobody uses.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BuildError, PackageError
from ..files import caches
from .files import CHUNK, Files, Limits, ZipFiles, open_files, read
from .manifest import NAME as MANIFEST
from .manifest import compare, hash_files, parse_manifest
from .platform_config import DATA

Progress = Callable[[str], None] | None

_FORMAT = 2
SETTLED_NS = (
    2_000_000_000  # a file changed less than this ago may change again within the same tick of its clock
)


@dataclass(frozen=True)
class Unpacked:
    """A zip's contents on disk."""

    folder: Path
    hashes: Mapping[str, str]
    """The SHA-256 of each file."""


def unpack(path: Path, limits: Limits, expected: list[Any], progress: Progress = None) -> Unpacked:
    """The unpacked contents of a zip, its manifest (if it has one) verified; unpacks it if the cache does not have them.

    `expected` is the zip's signature when it was read. Raises PackageError, and then leaves nothing behind; BuildError where the cache
    cannot be written to.
    """
    with open_files(path, limits) as files:
        if not isinstance(files, ZipFiles) or files.signature() != expected:
            raise PackageError("was changed after it was read; read it again", package=str(path))
        key = archive_hash(files, keep=False)
        home = caches.folder("packages") / key
        found = _in_use(home, files)
        if found is None:

            def waiting(holder: str) -> None:
                if progress is not None:
                    progress(f"waiting for {holder}, which unpacks {path.name}")

            with exclusive(home, waiting):
                found = _in_use(home, files) or _unpack(files, home, progress)
        archive_hash(files, known=key)  # only now, for nothing is kept of a package that is refused
    return found


def archive_hash(files: ZipFiles, *, known: str | None = None, keep: bool = True) -> str:
    """The SHA-256 of the zip file itself (`known`, if the caller has it), remembered for as long as the file is not changed."""
    return str(_remembered("archive", files, lambda: known or _hash_archive(files), keep))


def file_hashes(files: Files, *, known: Mapping[str, str] | None = None, keep: bool = True) -> dict[str, str]:
    """The SHA-256 of each file of a package (`known`, if the caller has them), remembered for as long as none is changed."""
    return dict(_remembered("files", files, lambda: known or hash_files(files), keep))


def check_manifest(files: Files, hashes: Mapping[str, str]) -> None:
    """Raise PackageError unless the manifest, if there is one, lists exactly these."""
    text = read(files, MANIFEST)
    if text is not None:
        compare(parse_manifest(text, str(files.path)), hashes, str(files.path))


# ---- unpacking


def _in_use(home: Path, files: ZipFiles) -> Unpacked | None:
    """What was unpacked earlier, its last use set to now, so that it is not removed while its worker starts."""
    with used(home):
        found = _look_up(home, files)
        if found is not None:
            caches.touch(home / "used")
        return found


@contextlib.contextmanager
def used(home: Path) -> Iterator[None]:
    """Hold an unpacked package, if it is there, so that nobody removes it meanwhile; `cleanup` lets go of none that is held."""
    try:
        descriptor = os.open(home / "used", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # it is not there, or belongs to somebody else and is in a cache that only they clean up
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _look_up(home: Path, files: ZipFiles) -> Unpacked | None:
    """What was unpacked earlier, None where something of it is gone (people and tools clean up cache folders)."""
    contents = caches.read_json(home / "contents.json")
    if not isinstance(contents, dict) or contents.get("format") != _FORMAT:
        return None
    try:
        sizes = {name: os.lstat(home / "tree" / name).st_size for name in files.sizes}
    except OSError:
        return None
    return Unpacked(home / "tree", contents["hashes"]) if sizes == files.sizes else None


def _unpack(files: ZipFiles, home: Path, progress: Progress) -> Unpacked:
    """Raises PackageError. The lock is held."""
    remove_leftovers(home.parent, home.name)
    total = sum(files.sizes.values())
    free = shutil.disk_usage(home.parent).free
    if total > free:
        raise PackageError(
            f"it needs {total} bytes unpacked, and {home.parent} has {free} free; "
            "make room there, or set OPEXEC_CACHE to another folder",
            package=str(files.path),
        )
    if progress is not None:
        progress(f"unpacking {files.path.name} ({len(files.sizes)} files, {total / 1e6:.1f} MB)")
    scratch = caches.scratch_beside(home)
    try:
        (scratch / "tree").mkdir(parents=True)
        hashes = {name: _extract(files, name, scratch / "tree") for name in files.sizes}
        # A zip lists no empty folder, and code that is given its data folder may look into it.
        (scratch / "tree" / DATA).mkdir(parents=True, exist_ok=True)
        check_manifest(files, hashes)
        if files.signature() != _signature_at(files.path):
            raise PackageError("was changed while it was unpacked; try again", package=str(files.path))
        source = {"format": _FORMAT, "hashes": hashes, "source": os.fspath(files.path)}
        caches.write_json(scratch / "contents.json", source)
        (scratch / "used").touch()
        discard(home)  # something of it was gone
        os.rename(scratch, home)
    except OSError as error:
        raise PackageError(
            f"cannot be unpacked to {home.parent}: {error}; make room there, or set OPEXEC_CACHE to another folder",
            package=str(files.path),
        ) from error
    finally:
        discard(scratch)
    return Unpacked(home / "tree", hashes)


def _extract(files: ZipFiles, name: str, tree: Path) -> str:
    """Write one file; returns its SHA-256."""
    target = tree / name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(target, flags, 0o444), "wb", buffering=0) as output:
        for chunk in files.chunks(name):
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[output.write(view) :]
    return digest.hexdigest()


def _signature_at(path: Path) -> list[Any]:
    status = os.stat(path)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def discard(folder: Path) -> None:
    """Remove a folder, out of everybody's sight first: a process that has files of it open keeps them."""
    if os.path.lexists(folder):
        hidden = folder if folder.name.startswith(".") else caches.scratch_beside(folder)
        if hidden != folder:
            os.rename(folder, hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def remove_leftovers(folder: Path, own: str | None = None) -> None:
    """Remove what killed processes were unpacking: of the zip `own`, whose lock the caller holds, and of any whose lock is free."""
    for entry in list(os.scandir(folder)):
        key = entry.name[1:].partition(".")[0]
        if not entry.name.startswith(".") or len(key) != 64:
            continue
        if key == own:
            shutil.rmtree(entry.path, ignore_errors=True)
            continue
        lock = folder / f"{key}.lock"
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            shutil.rmtree(entry.path, ignore_errors=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, lock):
                shutil.rmtree(entry.path, ignore_errors=True)
                os.unlink(lock)
        except BlockingIOError:
            pass  # it is being unpacked
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def exclusive(home: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an unpacked package, for who unpacks or removes it. `waiting`: what `caches.locked` tells where it is taken.

    The lock's file is removed in the end: a package that is refused leaves nothing behind.
    """
    lock = home.with_suffix(".lock")
    while True:
        with caches.locked(lock, waiting) as descriptor:
            if not _is_at(descriptor, lock):
                continue  # its holder removed it while this process waited for it
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(lock)
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


# ---- hashes of files that have not changed


def _remembered(kind: str, files: Files, compute: Callable[[], Any], keep: bool) -> Any:
    """What `compute` finds by reading everything, or found when the files' identities, sizes and times were as they are now.

    `keep`: whether to remember it.
    """
    signature = files.signature()
    started = time.time_ns()
    key = caches.digest([kind, os.path.realpath(files.path)])
    entry = caches.root() / "packages" / "hashes" / f"{key}.json"
    known = caches.read_json(entry)
    stamp = [_FORMAT, caches.digest(signature)]
    if isinstance(known, dict) and known.get("of") == stamp:
        return known["value"]
    value = compute()
    if keep and started - _newest(signature) > SETTLED_NS:
        with contextlib.suppress(BuildError):  # a cache that cannot be written to only costs time here
            caches.folder("packages", "hashes")
            caches.write_json(entry, {"of": stamp, "value": value})
    return value


def _newest(signature: list[Any]) -> int:
    """The latest time in a signature, in ns."""
    rows = signature if signature and isinstance(signature[0], list) else [signature]
    return max((time for row in rows for time in row[-2:]), default=0)


def _hash_archive(files: ZipFiles) -> str:
    digest = hashlib.sha256()
    descriptor = files.file.fileno()
    at = 0
    while chunk := os.pread(descriptor, CHUNK, at):
        digest.update(chunk)
        at += len(chunk)
    return digest.hexdigest()
