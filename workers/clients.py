"""Other processes that a worker serves beside its caller, each over a channel of its own: whose turn it is, and who comes and goes.

All are served by the worker's main thread, in turns of one record: a model runs in one thread only, whoever calls it, and two calls never
overlap. So nothing here may wait for a client, which may be stopped, broken or dying: an answer that finds no room is put aside (`guest`), a
client that does not read is passed over, and one that breaks the protocol loses its channel (`client`); the others do not notice.

What a client gets comes from its own arena and its own plans. No descriptor, place or plan of one client is ever known to another.
"""

from __future__ import annotations

import os
import select
import time

from opexec.ipc.channel import close_all
from opexec.ipc.faults import PeerGone, ProtocolError
from opexec.ipc.segment import PAGE, Segment
from opexec.ipc.strategies import SPIN_EXPECTING_NS, SPIN_NS, Block
from opexec.workers.client import Client
from opexec.workers.loop import turn_away

_IDLE_MS = 10_000
_FULL_MS = 10  # a client that leaves its answers in the ring is looked at again this often
#: For how long calls of clients are still begun after the caller has left, in seconds.
_FINISH_S = 0.5


class Clients:
    """The caller's server (`host`) and the clients that have come."""

    def __init__(self, host):
        self.host = host
        self.clients = {}  # by the number of their control socket
        self._by_fd = {}  # the same by every descriptor that is polled for them
        self._tally = None
        self._poll = select.poll()
        self._poll.register(host.control.fileno(), select.POLLIN)
        self._poll.register(host.channel.bell.fd, select.POLLIN)

    def run(self):
        """Serve the caller and the clients until there are no clients. Raises what `Server.run` raises."""
        try:
            self._serve()
        except PeerGone:
            self._finish()
            raise

    def _serve(self):
        expecting = False
        while True:
            while self.host.arrived:
                self._admit(self.host.arrived.pop(0))
            # Here, where nothing refers to a client that has left: who reads the tally may rely on its memory being gone.
            if self._tally is not None:
                self._tally.set_clients(len(self.clients))
            if not self.clients:
                return
            worked = self._turn()
            if worked is not None:
                expecting = worked
            elif not self._look(expecting):
                expecting = self._sleep()

    def _finish(self):
        """The caller leaves: the calls that lie in the rings are still answered, for a moment."""
        end = time.monotonic() + _FINISH_S
        worked = True
        while worked and time.monotonic() < end:
            worked = False
            for client in list(self.clients.values()):
                if self._guarded(client, client.step) is not None:
                    worked = True

    # Turns

    def _turn(self):
        """One record of each; None if there was none, else whether another one is to be expected soon."""
        found = self.host.step()
        for client in list(self.clients.values()):
            worked = self._guarded(client, client.step)
            if worked is not None:
                found = found or worked
        return found

    def _guarded(self, client, action):
        """Do `action` for a client. Whatever goes wrong is that client's end, and nobody else's."""
        try:
            return action()
        except PeerGone:
            why = None
        except ProtocolError as error:
            why = str(error)
        except Exception as error:  # what a message or record that was made up leads to
            why = "{}: {}".format(type(error).__name__, error)
        # Past the handlers: a traceback would keep the client's memory mapped.
        self._dismiss(client, why)
        return None

    def _look(self, expecting):
        """Look for records for a moment, much as `strategies.Adaptive` does on one channel; True if one came."""
        servers = [self.host] + [client.guest for client in self.clients.values() if client.listens()]
        bell = self.host.channel.bell
        if all(isinstance(server.wait, Block) for server in servers) or bell.is_told_crowded():
            return False
        consumers = [server.channel.consumer for server in servers]
        end = time.perf_counter_ns() + (SPIN_EXPECTING_NS if expecting else SPIN_NS)
        while True:
            for consumer in consumers:
                if consumer.words[consumer.tail_at] != consumer.head:
                    return True
            if time.perf_counter_ns() > end:
                return False
            os.sched_yield()

    def _sleep(self):
        """Sleep until somebody rings or sends a message; True if somebody rang."""
        timeout = _IDLE_MS
        channels = [self.host.channel]
        for client in self.clients.values():
            if client.listens():
                channels.append(client.guest.channel)
            elif client.is_full():
                timeout = min(timeout, _FULL_MS)
            if client.control.pending():
                timeout = 0
        announced = []
        try:
            for channel in channels:
                announced.append(channel.bell)
                if not channel.bell.announce(channel.consumer.head):
                    return False
            ready = [fd for fd, _ in self._poll.poll(timeout)]
        finally:
            for bell in announced:
                bell.withdraw()
        rung = False
        for bell in announced:
            if bell.fd in ready:
                bell.clear()
                rung = True
        if self.host.control.fileno() in ready:
            self.host.channel.handle_control()
        for client in list(self.clients.values()):
            if client.pidfd in ready:
                self._dismiss(client, None)
            elif client.control.pending() or client.control.fileno() in ready:
                self._guarded(client, lambda client=client: self._hear(client))
        return rung

    def _hear(self, client):
        had = client.guest is not None
        client.hear(self.host.model, self._tally)
        if client.guest is not None and not had:
            fd = client.guest.channel.bell.fd
            self._by_fd[fd] = client
            self._poll.register(fd, select.POLLIN)

    # Coming and going

    def _admit(self, fds):
        if len(fds) != 3:
            close_all(fds)
            raise ProtocolError(
                "a client comes with {} descriptors; expected its socket, its process and the tally".format(
                    len(fds)
                )
            )
        sock, pidfd, tally = fds
        if self._tally is None:
            try:
                self._tally = Tally(tally)
            except ValueError as error:  # its mapping takes a descriptor
                turn_away([sock, pidfd], str(error))
                return
        else:
            os.close(tally)
        client = Client(sock, pidfd)
        self.clients[client.control.fileno()] = client
        for fd in (client.control.fileno(), pidfd):
            self._by_fd[fd] = client
            self._poll.register(fd, select.POLLIN)

    def _dismiss(self, client, why):
        if self.clients.pop(client.control.fileno(), None) is None:
            return
        for fd in [fd for fd, one in self._by_fd.items() if one is client]:
            del self._by_fd[fd]
            self._poll.unregister(fd)
        client.leave(why)


class Tally:
    """A page that the worker writes and its caller reads: how many calls of clients were taken, and how many clients there are."""

    def __init__(self, fd):
        self._map = Segment.attach("tally", fd, PAGE).map
        self._words = memoryview(self._map).cast("Q")

    def count(self):
        """One call more."""
        self._words[0] += 1

    def set_clients(self, count):
        """So many clients are attached now."""
        self._words[1] = count
