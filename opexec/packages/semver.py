"""Ranges of framework versions, as npm writes them: ``1.13.1``, ``> 1.13.1``, ``1.4.0 - 1.6.0``, ``^2.3 || 3.x``, ``*``.

The grammar is npm's (https://github.com/npm/node-semver#ranges). node-semver parses it, a maintained port of npm's own code; what npm
itself answers for some hundred ranges is among the tests. One difference is known: a number after a wildcard (``1.x.2``), which npm
refuses, is passed over. (semantic-version refuses a blank after the operator, which published packages have, and `<=*`; univers is
built on it. The options of node-semver about pre-releases differ from npm's and are not used.)

Frameworks are versioned as Python packages are (PEP 440), which is not quite what npm has. One rule makes the one from the other:

- The first three numbers count; missing ones are 0. What follows them does not: ``0.23.2.post1`` is 0.23.2, ``1.2.3.4`` is 1.2.3.
- A local label does not count: ``2.13.0+cpu`` is 2.13.0.
- A pre-release (``2.21.0rc1``, ``2.21.0.dev3``, or as TensorFlow says it ``2.21.0-rc1``) counts as the release that it precedes, for
  nobody has one installed by accident: it lies in ``*``, ``>=2.20`` and ``2.21.x``. Only where the range itself names a
  pre-release of that very version, as ``>=2.21.0-rc2`` does, npm's order decides: rc1 is not in it, rc2 and 2.21.0 are.
"""

from __future__ import annotations

import functools
import re
from typing import Any

MOST_CHARACTERS = 256  # npm's own bound

_LEADING = re.compile(r"v?(\d+(?:\.\d+)*)", re.ASCII)
_PRERELEASE = re.compile(
    r"(?<=\d)-(alpha|beta|preview|pre|rc|dev|a|b|c)[.-]?(\d*)(?![0-9A-Za-z])", re.ASCII | re.IGNORECASE
)
_NAMED = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_TRIPLE_WITH_PRERELEASE = re.compile(r"(\d+\.\d+\.\d+)-[0-9A-Za-z]", re.ASCII)


class VersionRange:
    """An npm range over the versions of a framework. Raises ValueError for text that is none."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ValueError(f"expected a range of versions such as '>=1.13.1 <2', got {text!r}")
        if len(text) > MOST_CHARACTERS:
            raise ValueError(
                f"expected a range of at most {MOST_CHARACTERS} characters, got one of {len(text)}"
            )
        self.text = text
        _parsed(text)

    def __contains__(self, version: str) -> bool:
        """Whether a framework of this version (as ``framework.__version__`` or pip tells it) may run the model.

        Raises ValueError for a version that starts with no number.
        """
        release, prerelease = _as_npm(version)
        parsed = _parsed(self.text)
        if prerelease and release in _TRIPLE_WITH_PRERELEASE.findall(_in_one_form(self.text)):
            return bool(parsed.test(f"{release}-{prerelease}"))
        return bool(parsed.test(release))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"VersionRange({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionRange) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    import nodesemver  # not at the top: most programs load no package

    try:
        return nodesemver.make_range(_in_one_form(text), loose=False)
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
        raise ValueError(
            f"expected a range of versions as npm writes them, such as '1.13.1', '>=1.13.1 <2' or '*', got {text!r}"
        ) from None


def _as_npm(version: str) -> tuple[str, str]:
    """The release that npm would see, and the pre-release's label ("" for none)."""
    leading = _LEADING.match(version.strip()) if isinstance(version, str) else None
    if leading is None:
        raise ValueError(f"expected a version such as '2.13.0', got {version!r}")
    numbers = [int(number) for number in leading[1].split(".")][:3]
    release = ".".join(str(number) for number in numbers + [0] * (3 - len(numbers)))
    return release, _prerelease(version.strip())


def _prerelease(version: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        parsed = Version(version)
    except InvalidVersion:  # "1.13.1-custom": a build of somebody's own
        return ""
    labels = [] if parsed.pre is None else [f"{parsed.pre[0]}.{parsed.pre[1]}"]
    if parsed.dev is not None:
        # Before all others (PEP 440); with npm, numbers come before words.
        labels.append(f"0.dev.{parsed.dev}")
    return ".".join(labels)


def _in_one_form(text: str) -> str:
    """The range with its pre-releases as `_prerelease` says them: ``-rc1``, ``-rc.1`` and ``-c1`` are one."""

    def one(match: re.Match[str]) -> str:
        label = match[1].lower()
        label = "0.dev" if label == "dev" else _NAMED.get(label, label)
        return f"-{label}.{match[2] or 0}"

    return _PRERELEASE.sub(one, text)
