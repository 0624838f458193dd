"""Just enough of the protocol buffers' wire format to read a few fields of a file, without the library and without a schema.

The format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Message:
    """A serialised message; its fields are found by number, and nothing is copied but what is asked for.

    Raises ValueError, from any method, where the bytes are no message.
    """

    def __init__(self, buffer: bytes | memoryview) -> None:
        self._buffer = memoryview(buffer)

    def fields(self) -> Iterator[tuple[int, int | memoryview]]:
        """Number and content of each field, in order: an int, or the bytes of a text, of a message or of packed numbers."""
        buffer, at = self._buffer, 0
        while at < len(buffer):
            tag, at = _varint(buffer, at)
            kind = tag & 7
            if kind == _VARINT:
                value, at = _varint(buffer, at)
                yield tag >> 3, value
                continue
            if kind == _LENGTH:
                size, at = _varint(buffer, at)
            elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
                size = 8 if kind == _EIGHT_BYTES else 4
            else:
                raise ValueError(
                    f"expected a protocol buffer; a field at byte {at} is of the unknown kind {kind}"
                )
            if at + size > len(buffer):
                raise ValueError(
                    f"expected a protocol buffer; it ends within a field of {size} bytes at byte {at}"
                )
            yield tag >> 3, buffer[at : at + size]
            at += size

    def messages(self, number: int) -> list[Message]:
        """All of a field that is a message, repeated or not."""
        return [
            Message(value) for field, value in self.fields() if field == number and not isinstance(value, int)
        ]

    def message(self, number: int) -> Message:
        """The field's message; an empty one where there is none. (One that is split in parts is joined by appending them.)"""
        parts = [bytes(one._buffer) for one in self.messages(number)]
        return Message(parts[0] if len(parts) == 1 else b"".join(parts))

    def text(self, number: int) -> str:
        """The field's text; empty where there is none."""
        found = [value for field, value in self.fields() if field == number and not isinstance(value, int)]
        return bytes(found[-1]).decode("utf-8", "replace") if found else ""

    def number(self, number: int) -> int:
        """The field's integer, as int64; 0 where there is none."""
        found = [value for field, value in self.fields() if field == number and isinstance(value, int)]
        value = found[-1] if found else 0
        return value - (1 << 64) if value >= 1 << 63 else value


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    """The number of up to 64 bits at `at`, seven a byte, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(buffer) or shift > 63:
            raise ValueError(f"expected a protocol buffer; there is no number at byte {at}")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
