"""Writing a package's folder as one zip file: same contents, same bytes, on every machine."""

from __future__ import annotations

import zipfile
from typing import IO

from .files import FolderFiles

_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # the earliest that the format has
_MODE = 0o100644
_UNIX = 3
# Well below 4 GiB: a deflated file can come out larger than it went in.
_ZIP64_FROM = 1 << 31


def write_zip(files: FolderFiles, target: IO[bytes], compress: bool = False) -> None:
    """Write all files of a folder to `target`, an open file that can seek.

    Entries are sorted by name, have one timestamp and one mode, and are stored as they are, so that equal contents give equal bytes.
    `compress` deflates them instead: smaller where there is text in them (weights hardly shrink), slower to load, and the same bytes only
    where zlib is the same, for its releases and its replacements compress differently. Files and archives past 4 GiB are written as zip64.

    Raises PackageError, OSError.
    """
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(target, "w", method, allowZip64=True) as archive:
        for name, size in files.sizes.items():
            info = zipfile.ZipInfo(name, _TIMESTAMP)
            info.create_system = _UNIX
            info.external_attr = _MODE << 16
            info.compress_type = method
            info.file_size = size
            with archive.open(info, "w", force_zip64=size >= _ZIP64_FROM) as entry:
                for chunk in files.chunks(name):
                    entry.write(chunk)
