"""How the command shows things: tables that fit a terminal's width, plain columns in a pipe, JSON for programs."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


_GAP = "  "  # between columns
_LEAST = 12  # columns of a terminal for a cell that is cut


@dataclass(frozen=True)
class Column:
    """Of a table. On a terminal too narrow for all of them, those with `shrinks` are cut, the last one first."""

    title: str
    right: bool = False
    shrinks: bool = False
    needs: int = 0
    """The width of terminal below which it is left out."""


def is_terminal() -> bool:
    return sys.stdout.isatty()


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal no wider than that; in a pipe every cell whole, so that `grep`, `awk` and `cut` see all of it."""
    lines = [[column.title for column in columns], *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    shown = list(range(len(columns)))
    if is_terminal():
        room = _console().width
        shown = [place for place in shown if columns[place].needs <= room]
        excess = sum(widths[place] for place in shown) + len(_GAP) * (len(shown) - 1) - room
        for place in reversed(shown):
            if excess > 0 and columns[place].shrinks:
                cut = min(excess, max(widths[place] - _LEAST, 0))
                widths[place] -= cut
                excess -= cut
    for number, line in enumerate(lines):
        cells = (_cell(line[place], widths[place], columns[place].right) for place in shown)
        text = _GAP.join(cells).rstrip()
        if is_terminal():
            _console().print(text, style="bold" if number == 0 else None, markup=False, soft_wrap=True)
        else:
            print(text)


def _cell(text: str, width: int, right: bool) -> str:
    if len(text) > width:
        return text[: width - 1] + "…"
    return text.rjust(width) if right else text.ljust(width)


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """What is known of one thing, a line each; long ones go on below on a terminal."""
    width = max(len(label) for label, _ in pairs)
    if not is_terminal():
        for label, value in pairs:
            print(f"{label.ljust(width)}  {value}".rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in pairs:
        grid.add_row(Text(label), Text(value))
    _console().print(grid)


def findings(found: Sequence[tuple[str, str, str, str, str | None]]) -> None:
    """Findings: a mark with its style, the topic, the fact, and what to change, which goes on a line of its own."""
    if not is_terminal():
        width = max(len(topic) for _, _, topic, _, _ in found)
        for mark, _, topic, fact, cure in found:
            print(f"{mark.ljust(6)}  {topic.ljust(width)}  {fact}")
            if cure:
                print(f"{'':6}  {'':{width}}  -> {cure}")
        return
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    last = ""
    for mark, style, topic, fact, cure in found:
        grid.add_row(Text(mark, style), Text("" if topic == last else topic), Text(fact))
        if cure:
            grid.add_row("", "", Text(f"-> {cure}", style))
        last = topic
    _console().print(grid)


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """One line beside the result, on standard error."""
    print(f"opexec: {text}", file=sys.stderr)


def failure(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble("opexec: ", ("error: ", "bold red"), text))


@contextmanager
def working(text: str) -> Iterator[None]:
    """Tells that something takes a moment, on a terminal and while it does."""
    if not (is_terminal() and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


@functools.cache
def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
