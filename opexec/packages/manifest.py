"""What a package's files hold: the hash of each, the hash of all, and ``manifest.json``, which lists them.

    {"manifest_version": 1, "files": {"0/data/model.pb": "<SHA-256 in hexadecimal>", ...}}

A manifest lists every file of the package but itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

from ..errors import PackageError
from .files import Files
from .json import Reader, parse_json, to_json

NAME = "manifest.json"

_VERSION = 1
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_NAMED = 20  # files that a message names of each sort


def hash_files(files: Files) -> dict[str, str]:
    """The SHA-256 of each file, in hexadecimal. Reads all of them. Raises PackageError."""
    return {name: hash_file(files, name) for name in files.sizes}


def hash_file(files: Files, name: str) -> str:
    """The SHA-256 of one file, in hexadecimal. Raises PackageError."""
    return _sha256(files.chunks(name))


def content_hash(hashes: Mapping[str, str]) -> str:
    """One SHA-256 for the contents of a package, whether it is a folder or a zip, however compressed.

    It is that of the text which ``sha256sum`` prints for all files, sorted by name.
    """
    lines = (f"{hashes[name]}  {name}\n" for name in sorted(hashes))
    return _sha256(line.encode() for line in lines)


def write_manifest(hashes: Mapping[str, str]) -> bytes:
    """The ``manifest.json`` of these files."""
    listed = {name: hashes[name] for name in sorted(hashes) if name != NAME}
    return to_json({"manifest_version": _VERSION, "files": listed})


def parse_manifest(text: bytes, package: str) -> dict[str, str]:
    """The SHA-256 of each file that a manifest lists. Raises PackageError."""
    content = parse_json(text, package, NAME)
    reader = Reader(package, NAME, content)
    if reader.required("manifest_version") != _VERSION:
        raise reader.refused("manifest_version", str(_VERSION), content["manifest_version"])
    listed = reader.required("files")
    if not isinstance(listed, dict):
        raise reader.refused("files", "an object of file names and hashes", listed)
    for name, value in listed.items():
        if not isinstance(value, str) or not _SHA256.fullmatch(value):
            raise reader.refused(f"files.{name}", "a SHA-256 of 64 hexadecimal digits", value)
    return {name: value.lower() for name, value in listed.items()}


def compare(listed: Mapping[str, str], hashes: Mapping[str, str], package: str) -> None:
    """Raise a PackageError that names every file which the manifest does not have as it is."""
    found = {name: value for name, value in hashes.items() if name != NAME}
    expected = {name: value for name, value in listed.items() if name != NAME}
    wrong = {
        "changed": [name for name in expected if name in found and found[name] != expected[name]],
        "missing": [name for name in expected if name not in found],
        "not listed": [name for name in found if name not in expected],
    }
    if any(wrong.values()):
        parts = [f"{kind}: {_names(names)}" for kind, names in wrong.items() if names]
        raise PackageError(
            f"expected the files that the manifest lists; {'; '.join(parts)}", package=package, file=NAME
        )


def _names(names: list[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(ascii, names[:_NAMED])) + more


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
