"""The reader's role: who reads the answers of a connection, for everybody who waits for one.

Whoever waits first has it, and hands it over when it leaves: to a thread that waits for a call of its own, else to the *heirs*, who read for
calls that no thread waits for. The role is an entry in a dict that names its holder, taken with the atomic `dict.setdefault`: an exception at
any point, Ctrl-C included, finds out from the entry itself whether the role is to be given back.
"""

from __future__ import annotations

from collections.abc import Callable

from ..ipc.doorbell import Doorbell
from .calls import InFlight


class ReaderRole:
    """See the module. `Connection.wait`, which every call comes through, has `take` and `leave` spelled out."""

    def __init__(self, calls: InFlight, bell: Doorbell) -> None:
        #: The holder, under 0; empty while nobody reads.
        self.holder: dict[int, object] = {}
        #: The bell is announced for a reader that does not keep the role (`step_aside`).
        self.announced = False
        self._calls = calls
        self._bell = bell
        self._heirs: list[Callable[[], None]] = []

    def take(self, reader: object) -> bool:
        """Try to become the reader; True if `reader` has the role now."""
        if self.holder.setdefault(0, reader) is not reader:
            return False
        if self.announced:
            self.withdraw()
        return True

    def withdraw(self) -> None:
        """Take the announcement of one who stepped aside back."""
        self._bell.withdraw()
        self.announced = False

    def leave(self, reader: object) -> None:
        """Give the role up, if `reader` has it, to somebody who waits."""
        try:
            if self.holder.get(0) is reader:
                del self.holder[0]
                if self._calls.pending:
                    self.hand_over()
        except BaseException:
            self.drop(reader)
            raise

    def drop(self, reader: object) -> None:
        """Finish giving the role up, which was interrupted."""
        if self.holder.get(0) is reader:
            del self.holder[0]
        self.hand_over()

    def step_aside(self, reader: object, announced: bool) -> None:
        """Give the role up for as long as nothing rings: `reader` has announced the bell, and sleeps where it may be kept from waking up."""
        if not announced:
            self.leave(reader)
        elif self.holder.get(0) is reader:
            self.announced = True
            del self.holder[0]
            if self._calls.pending:
                self._calls.wake_one()

    def hand_over(self) -> None:
        """The role is free: have somebody take it who waits."""
        if not self._calls.wake_one():
            self.tell_heirs()

    def tell_heirs(self) -> None:
        for heir in list(self._heirs):
            heir()

    def add_heir(self, heir: Callable[[], None]) -> None:
        """Have `heir` called when the role falls free while no thread waits for a call of its own, and when the connection ends."""
        self._heirs.append(heir)

    def remove_heir(self, heir: Callable[[], None]) -> None:
        """Undo `add_heir`."""
        if heir in self._heirs:
            self._heirs.remove(heir)
