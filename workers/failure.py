"""An exception as plain data: no exception object ever crosses to the other side."""

from __future__ import annotations

import os
import traceback

_MESSAGE_CHARACTERS = 32000
_TRACEBACK_CHARACTERS = 32000
_HERE = os.path.dirname(os.path.abspath(__file__))

#: Where frames of our own come from: this folder, and what calls a platform in the caller's own process. A model may lie in a folder
#: or a file whose name only begins or ends like these.
_FOLDER = os.path.join(_HERE, "")
_IN_PROCESS = os.path.join(os.path.dirname(_HERE), "inprocess.py")


def describe(error):
    """``{"type": qualified class name, "message": text, "traceback": text}``, the traceback without this package's own frames at its top."""
    frames = error.__traceback__
    while frames is not None and frames.tb_next is not None and _is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    kind = type(error)
    lines = traceback.format_exception(kind, error, frames)
    return {
        "type": kind.__name__
        if kind.__module__ == "builtins"
        else "{}.{}".format(kind.__module__, kind.__qualname__),
        "message": _plain(_message(error))[:_MESSAGE_CHARACTERS],
        "traceback": _plain("".join(lines))[-_TRACEBACK_CHARACTERS:],
    }


def _message(error):
    try:
        return str(error)
    except Exception as reason:  # of the model's own making
        return "(its message cannot be shown: {!r})".format(reason)


def _plain(text):
    """The text without what UTF-8 cannot say: a Python text may hold lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_ours(path):
    return path.startswith(_FOLDER) or path == _IN_PROCESS
