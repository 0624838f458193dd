"""What workers count for their clients, on a page that each worker shares with its owner."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from ..ipc.segment import PAGE, Segment

if TYPE_CHECKING:
    from ..connection import Connection
    from ..isolated import IsolatedModel


class Tallies:
    """One model's, over all workers it has had since it was first shared. Thread-safe."""

    _of: weakref.WeakKeyDictionary[IsolatedModel, Tallies] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        # Weakly: a worker that has died goes at once, with its memory, though nobody asks for the counts.
        self._pages: dict[weakref.ref[Connection], Segment] = {}
        self._former_calls = 0
        self._lock = threading.Lock()
        # With the model. Not at the interpreter's exit, where a thread may still hand one on.
        weakref.finalize(self, _close, self._pages).atexit = False

    @classmethod
    def of(cls, model: IsolatedModel) -> Tallies:
        return cls._of.setdefault(model, cls())

    def page(self, connection: Connection) -> Segment:
        """The page for a worker, made if it has none."""
        with self._lock:
            self._drop_the_dead()
            key = weakref.ref(connection)
            page = self._pages.get(key)
            if page is None:
                page = self._pages[key] = Segment.create(0, PAGE)
            return page

    def clients_of(self, connection: Connection) -> int:
        page = self._pages.get(weakref.ref(connection))
        return 0 if page is None else _read(page)[1]

    def calls_of(self, connection: Connection) -> int:
        """Calls of clients that a worker has begun."""
        page = self._pages.get(weakref.ref(connection))
        return 0 if page is None else _read(page)[0]

    def counts(self) -> tuple[int, int]:
        """Calls of clients that were begun, and the clients there are."""
        with self._lock:
            self._drop_the_dead()
            read = [_read(page) for page in self._pages.values()]
        return self._former_calls + sum(calls for calls, _ in read), sum(count for _, count in read)

    def _drop_the_dead(self) -> None:
        for key, page in list(self._pages.items()):
            connection = key()
            if connection is None or connection.dead is not None:
                del self._pages[key]
                page.close()
                self._former_calls += _read(page)[0]


def _close(pages: dict[weakref.ref[Connection], Segment]) -> None:
    for page in pages.values():
        page.close()


def _read(page: Segment) -> tuple[int, int]:
    """Whatever the worker wrote there: it is shown to people, and has that worker replaced, at most."""
    words = memoryview(page.map).cast("Q")
    return words[0], words[1]
