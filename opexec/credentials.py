"""User names and passwords in URLs: what is shown, logged or raised has none."""

from __future__ import annotations

import re

# Up to the last @ before the first slash: a password may have an @ in it that should have been quoted.
_IN_URL = re.compile(r"""(?<=://)[^/\s'"<>]*@""")
_PASSWORD = re.compile(r"""https?://[^/\s'"<>]*@|://[^/\s'"<>]*:[^/\s'"<>]*@""")
_CONDA_TOKEN = re.compile(r"(://[^\s/]+/t/)[^/\s]+")


def without_credentials(text: str) -> str:
    """Text without the user names and passwords in its URLs, and without the tokens of conda's channels (``/t/TOKEN/``)."""
    if "://" not in text:
        return text
    return _CONDA_TOKEN.sub(r"\1...", _IN_URL.sub("", text))


def has_password(text: str) -> bool:
    """Whether there is one in a URL: a name alone is one over HTTP, where it may be a token, and is none over SSH (``git@``)."""
    return bool(_PASSWORD.search(text)) or bool(_CONDA_TOKEN.search(text))
