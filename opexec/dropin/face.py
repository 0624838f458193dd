"""What all faces have in common: the model behind them, its end, and a clear word about what they lack."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import opexec
from opexec import Model

_Face = TypeVar("_Face", bound="Face")


class Face:
    """An object that looks like another library's loaded model and calls an opexec `Model`."""

    def __init__(self, model: Model) -> None:
        self.opexec_model = model

    def close(self) -> None:
        """End the worker. Arrays that the model gave stay good. Closing twice does nothing."""
        self.opexec_model.close()

    def __enter__(self: _Face) -> _Face:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Called for what is not there."""
        kind = type(self)
        offered = ", ".join(one for one in dir(self) if not one.startswith("_"))
        raise AttributeError(
            f"{kind.__name__!r} of {kind.__module__} has no {name!r}; it has {offered}. The object itself lives in another process. "
            "For calls beyond these see `.opexec_model`, the opexec.Model behind it (infer, submit, infer_async, empty, stats, ...)",
            name=name,
            obj=self,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} over {self.__dict__.get('opexec_model')!r}>"


def load(
    source: str | os.PathLike[str] | bytes | IO[bytes], ending: str, **options: Any
) -> tuple[Model, Path]:
    """`opexec.load` of a path, or of a file's content: bytes, or an open file. Returns the model, and the file that it is loaded from.

    Of content a copy, whose name ends in `ending`, lives as long as the model.
    """
    if isinstance(source, str | os.PathLike):
        return opexec.load(source, **options), Path(source).expanduser().absolute()
    content = source if isinstance(source, bytes) else source.read()
    folder = tempfile.TemporaryDirectory(prefix="opexec-dropin-")
    path = Path(folder.name, "model" + ending)
    try:
        path.write_bytes(content)
        model = opexec.load(path, **options)
    except BaseException:
        folder.cleanup()
        raise
    # Not sooner: a worker that is started anew reads the file again.
    weakref.finalize(model, folder.cleanup)
    return model, path
