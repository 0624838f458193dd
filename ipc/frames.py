"""Frames, the form in which messages lie in a control socket's stream.

    0        4        8                      8 + length
    | length | fds    | one msgpack map ...  |

with `length` (of the map, in bytes) and `fds` (how many descriptors belong to the message) as little-endian 32-bit unsigned integers.
The descriptors travel as SCM_RIGHTS with the frame's first byte. The count is in the frame because the kernel may hand over the bytes of
earlier frames and a frame with descriptors in one `recvmsg`: that the descriptors have come does not say whose they are.

A sender makes a `Frame` and asks it what is left to send; a receiver collects what `recvmsg` returns, its *chunks*, and has `split` find
the messages in them. Nothing here touches a socket.
"""

from __future__ import annotations

import array
import collections
import socket
import struct

from .faults import ProtocolError
from .packing import pack, unpack

#: Longest message in bytes, without its header.
MAX_MESSAGE = 16 << 20

#: Most descriptors that one message carries.
MAX_DESCRIPTORS = 32

_HEADER = struct.Struct("<II")
_TRUNCATED = int(socket.MSG_CTRUNC)  # a plain int: enum's operators take microseconds


class Frame:
    """A message to be sent, and how much of it the socket has taken: what each `sendmsg` took is to be added to `sent`.

    Raises ValueError if it is too long.
    """

    def __init__(self, message, fds=()):
        body = pack(message)
        if len(body) > MAX_MESSAGE or len(fds) > MAX_DESCRIPTORS:
            raise ValueError(
                "a control message of {} bytes with {} descriptors; the most is {} bytes and {} descriptors".format(
                    len(body), len(fds), MAX_MESSAGE, MAX_DESCRIPTORS
                )
            )
        self.sent = []  # in bytes
        self._data = memoryview(_HEADER.pack(len(body), len(fds)) + body)
        self._fds = array.array("i", fds)

    def begun(self):
        return bool(self.sent)

    def rest(self):
        return self._data[sum(self.sent) :]

    def ancillary(self):
        """What goes to `sendmsg` beside `rest`."""
        return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, self._fds)] if self._fds and not self.sent else []


def split(chunks, may_lose=()):
    """The whole messages in `chunks` (results of `recvmsg`), as a deque, and the chunks that are left. Changes nothing.

    Raises ProtocolError, for lost descriptors too; but not where they are those of a message whose type is among `may_lose`: it has the first
    ones of them, for which there was room.
    """
    found: collections.deque = collections.deque()
    losses = _losses(chunks)
    size = sum(len(chunk[0]) for chunk in chunks)
    if len(chunks[0][0]) < _HEADER.size or size >= _HEADER.size + _lengths(chunks[0][0])[0]:
        data = b"".join(chunk[0] for chunk in chunks)
    else:  # not even the first message is whole: a long one is put together once, when its last part is here
        return found, list(chunks)
    fds = descriptors(chunks)
    start = 0
    while size - start >= _HEADER.size:
        length, count = _lengths(data, start)
        end = start + _HEADER.size + length
        if end > size:
            break
        lost = count and losses and losses[0][0] <= start < losses[0][1]
        if count > len(fds) and not lost:
            raise ProtocolError("a message announces {} descriptors, {} came".format(count, len(fds)))
        message = _message(data[start + _HEADER.size : end])
        if lost:
            count = losses.pop(0)[2]
            if message["type"] not in may_lose:
                raise ProtocolError(
                    "descriptors that came are lost: this process may open no more files, or more than {} came at once".format(
                        MAX_DESCRIPTORS
                    )
                )
        found.append((message, fds[:count]))
        del fds[:count]
        start = end
    if start == size:
        if fds:
            raise ProtocolError("{} descriptors came that belong to no message".format(len(fds)))
        return found, []
    return found, [
        (
            data[start:],
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())],
            _TRUNCATED if losses else 0,
            None,
        )
    ]


def _losses(chunks):
    """Where descriptors were lost, as ``(begin, end, how many came)``: of the one message with descriptors that begins between these bytes.

    It is one, because the kernel ends a `recvmsg` with the first message that has descriptors.
    """
    losses, end = [], 0
    for chunk in chunks:
        begin, end = end, end + len(chunk[0])
        if chunk[2] & _TRUNCATED:
            losses.append((begin, end, len(descriptors([chunk]))))
    return losses


def descriptors(chunks):
    """Every descriptor that came with `chunks`, in order."""
    fds = array.array("i")
    for _, ancillary, _, _ in chunks:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def _lengths(data, start=0):
    length, count = _HEADER.unpack_from(data, start)
    if length > MAX_MESSAGE or count > MAX_DESCRIPTORS:
        raise ProtocolError(
            "a frame of {} bytes with {} descriptors; the most is {} bytes and {} descriptors".format(
                length, count, MAX_MESSAGE, MAX_DESCRIPTORS
            )
        )
    return length, count


def _message(body):
    try:
        message = unpack(body)
    except Exception as error:  # whatever a decoder makes of garbage
        raise ProtocolError(
            "a message that is not msgpack: {}: {}".format(type(error).__name__, error)
        ) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError(
            'expected a map with a text under "type", received {}'.format(
                sorted(map(str, message)) if isinstance(message, dict) else type(message).__name__
            )
        )
    return message
