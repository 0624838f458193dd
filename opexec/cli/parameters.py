"""Kinds of values that options of several commands take."""

from __future__ import annotations

import datetime
from typing import Any

import click

from ..sizes import parse_span


class Span(click.ParamType):
    """A `datetime.timedelta`: ``30d``."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime.timedelta:
        try:
            return value if isinstance(value, datetime.timedelta) else parse_span(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Size(click.ParamType):
    """Bytes, as an int: ``20GB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from ..memory import parse_size

        try:
            return 0 if value == "0" else parse_size(value)
        except ValueError:
            self.fail(
                f"expected a size such as 20GB or 500MiB (units are powers of 1024); got {value!r}",
                param,
                ctx,
            )
