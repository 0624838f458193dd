"""Telling the user how far the building of an environment is: on standard error, live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..credentials import without_credentials

if TYPE_CHECKING:
    from rich.progress import Progress

# What uv says while it installs, without its progress bars: "Downloading numpy (15.0MiB)", " Downloaded numpy",
# "   Building x @ file:///x", "      Built x @ file:///x", "Installed 2 packages in 5ms".
_STARTED = re.compile(r"\s*(Downloading|Building) (\S+)(?:.* \(([\d.]+ ?[KMGT]?i?B)\))?")
_FINISHED = re.compile(r"\s*(?:Downloaded|Built) (\S+)")
_PREPARED = re.compile(r"Prepared \d+ packages?\b")
_INSTALLED = re.compile(r"Installed \d+ packages?\b")


@contextlib.contextmanager
def reporting(title: str, report: Callable[[str], None] | None) -> Iterator[Callable[[str], None]]:
    """A function that tells the user the current step of one build. Nothing is shown before its first call.

    With `report` given, that is what is called, first with the title. Otherwise a terminal gets one live line for each build
    under way, of which the last step stays; and anything else (a log file, a pipe) gets one line a step.
    """
    with contextlib.ExitStack() as stack:
        show: Callable[[str], None] | None = None

        def tell(step: str) -> None:
            nonlocal show
            if show is None:
                if report is not None:
                    show = report
                    show(title)
                elif sys.stderr is not None and sys.stderr.isatty():
                    show = stack.enter_context(_board.task(title))
                else:
                    show = print_line
                    show(title)
            show(without_credentials(step))

        yield tell


def print_line(text: str) -> None:
    """One line on standard error, in a single write: what several threads tell at once must not run into each other."""
    if sys.stderr is not None:
        sys.stderr.write(f"opexec: {text}\n")
        sys.stderr.flush()


class UvLog:
    """Makes steps out of uv's lines: what is being downloaded or compiled now, how much has been, and the counts."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._under_way: dict[str, int] = {}  # sizes in bytes
        self._done = 0

    def __call__(self, line: str) -> None:
        if started := _STARTED.match(line):
            verb, name, size = started.groups()
            self._under_way[name] = _bytes(size)
            others = len(self._under_way) - 1
            self._report(
                f"{verb.lower()} {name}"
                + f" ({size})" * bool(size)
                + f" and {others} more" * bool(others)
                + f", {readable_size(self._done)} done" * bool(self._done)
            )
        elif finished := _FINISHED.match(line):
            self._done += self._under_way.pop(finished.group(1), 0)
        elif prepared := _PREPARED.match(line):
            self._report(
                f"{prepared.group().lower()}" + f", {readable_size(self._done)} downloaded" * bool(self._done)
            )
        elif installed := _INSTALLED.match(line):
            self._report(f"{installed.group().lower()}; compiling bytecode")


# What the tools of conda say, in a pipe. micromamba and mamba: "  Install: 34 packages", "Linking numpy-1.26.4-py311_0". conda:
# "Solving environment: ...working... done", "numpy-1.26.4 | 7.1 MB | ###5 | 35% ".
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TO_INSTALL = re.compile(r"\s*Install: (\d+) packages?\b")
_LINKING = re.compile(r"Linking (\S+)")
_BAR = re.compile(r"(\S+)\s*\|(?: *([\d.]+ ?[KMGT]?i?B) *\|)?.*\d+ ?%")
_WORKING = re.compile(r"[ .]*\.\.\.working\.\.\.( done)?$")
# The rows of its tables and lists, rules, and how to activate what was made.
_NO_STEP = re.compile(
    r"[-+~#$>│|]|[^A-Za-z]*$|\S+ {2,}\S+ {2,}\S|\w+: *$|To (de)?activate |Or to execute |(micro)?mamba (run|(de)?activate)|conda (de)?activate"
)


class CondaLog:
    """Makes steps out of the lines of micromamba, mamba and conda, and of the pip that they run: what is downloaded, how many packages
    are in their place, and what else they say but for tables.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._told: set[str] = set()
        self._linked = 0
        self._to_install = 0

    def __call__(self, line: str) -> None:
        step = self._step(_ESCAPE.sub("", line).strip())
        if step and step not in self._told:
            self._told.add(step)
            self._report(step)

    def _step(self, line: str) -> str | None:
        if to_install := _TO_INSTALL.match(line):
            self._to_install = int(to_install.group(1))
            return f"installing {counted(self._to_install)}"
        if linking := _LINKING.match(line):
            self._linked += 1
            of = f" of {self._to_install}" * bool(self._to_install)
            return f"linking {linking.group(1)}, {self._linked}{of}"
        if bar := _BAR.match(line):
            name, size = bar.groups()
            return f"downloading {name}" + f" ({size})" * bool(size)
        if _NO_STEP.match(line):
            return None
        said = re.sub(r"\s+", " ", _WORKING.sub("", line).rstrip(":"))
        return said if len(said) <= 120 else f"{said[:117]}..."


def counted(packages: int) -> str:
    return f"{packages} package{'s' * (packages != 1)}"


def readable_size(size: float) -> str:
    """Bytes as uv writes them: ``"15.0MiB"``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f}{unit}" if unit == "B" else f"{size:.1f}{unit}"
        size /= 1024
    return f"{size:.1f}GiB"


def _bytes(size: str | None) -> int:
    number, unit = re.fullmatch(r"([\d.]*) ?(\w*)", size or "").groups()  # type: ignore[union-attr]
    return int(float(number or 0) * 1024 ** "BKMGT".index((unit or "B")[0]))


class _Board:
    """The one live display of the process: builds in several threads share it, because rich draws one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._display: Progress | None = None
        self._running = 0

    @contextlib.contextmanager
    def task(self, title: str) -> Iterator[Callable[[str], None]]:
        last = ""
        with self._lock:
            if self._display is None:
                self._display = _display()
                self._display.start()
            display = self._display
            self._running += 1
            task = display.add_task(title, step="", total=None)

        def update(step: str) -> None:
            nonlocal last
            last = step
            display.update(task, step=step)

        try:
            yield update
            display.console.print(f"opexec: {title}: {last}", markup=False, highlight=False)
        finally:
            with self._lock:
                display.remove_task(task)
                self._running -= 1
                if self._running == 0:
                    display.stop()
                    self._display = None


_board = _Board()


def _display() -> Progress:
    # Imported here: rich takes 50 ms, and most calls find their environment built.
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class StepColumn(ProgressColumn):
        """The step, and then what is being built: on a narrow terminal the end of the line is cut off."""

        def render(self, task: Task) -> Text:
            line = Text(no_wrap=True, overflow="ellipsis")
            return line.append(task.fields["step"]).append("  ").append(task.description, style="dim")

    # Where room is short, rich takes it from columns that may wrap, before all others.
    kept = (SpinnerColumn(table_column=Column(no_wrap=True)), TimeElapsedColumn(Column(no_wrap=True)))
    return Progress(*kept, StepColumn(Column(no_wrap=False)), console=Console(stderr=True), transient=True)
