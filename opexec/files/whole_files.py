"""Writing files whole or not at all: whoever reads one sees what was there, or all that is new."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OpexecError
from . import caches


def write_text(path: Path, text: str) -> None:
    """In UTF-8. Raises OpexecError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Raises OpexecError."""
    temporary = caches.scratch_beside(path.absolute())
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OpexecError(f"{path} cannot be written: {error.strerror}; check the path") from error
    finally:
        temporary.unlink(missing_ok=True)
