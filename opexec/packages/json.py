"""JSON files of packages: read strictly, written always the same, and what is wrong with a field said with its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import PackageError, SpecError


def parse_json(text: bytes, package: str, file: str) -> dict[str, Any]:
    """A JSON object, in UTF-8 (or with a byte order mark, UTF-16 or 32). Raises PackageError.

    Refused, beside what is no JSON: a key that is there twice, NaN and infinities, which other readers take otherwise or not at all.
    """
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats, parse_constant=_no_constant)
        # Such text could not be written again, nor shown.
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise PackageError(f"expected a JSON object: {_shown(error)}", package=package, file=file) from None
    if not isinstance(content, dict):
        raise PackageError(f"expected a JSON object, got {shortened(content)}", package=package, file=file)
    return content


def to_json(content: Mapping[str, Any]) -> bytes:
    """A JSON file: equal contents, equal bytes. Keys stay in their order."""
    return json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def shortened(value: object) -> str:
    """A JSON value for a message."""
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    text = repr(text) if isinstance(value, str) else text
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True)
class Reader:
    """Reads fields of a JSON object; what is wrong with one is a PackageError that names it."""

    package: str
    file: str
    content: dict[str, Any]
    prefix: str = ""

    def refused(self, key: str, expected: str, got: object) -> PackageError:
        return PackageError(
            f"expected {expected}, got {shortened(got)}",
            package=self.package,
            file=self.file,
            field=self.prefix + key,
        )

    def text(self, key: str) -> str:
        value = self.required(key)
        if not isinstance(value, str) or not value:
            raise self.refused(key, "a text that is not empty", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; where there is none, an empty one."""
        value = self.content.get(key, [])
        if not isinstance(value, list):
            raise self.refused(key, "a list of texts", value)
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item:
                raise self.refused(f"{key}[{index}]", "a text that is not empty", item)
        return tuple(value)

    def list(self, key: str) -> list[Any]:
        value = self.required(key)
        if not isinstance(value, list):
            raise self.refused(key, "a list", value)
        return value

    def required(self, key: str) -> Any:
        if key not in self.content:
            raise PackageError("is missing", package=self.package, file=self.file, field=self.prefix + key)
        return self.content[key]

    def attempt(self, key: str, make: Callable[..., Any], *arguments: Any) -> Any:
        """What `make` returns for the arguments; a SpecError or ValueError of its is about the field `key`."""
        try:
            return make(*arguments)
        except (SpecError, ValueError) as error:
            raise PackageError(
                str(error), package=self.package, file=self.file, field=self.prefix + key
            ) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return content


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _shown(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:300]
