"""A model that overwrites the memory it shares with its caller, as a stray pointer would. Python >= 3.7."""

from __future__ import annotations

import ctypes

from opexec.ipc import ring


def segments(everything):
    """The channel segment, or every segment of opexec's that is mapped here, as bytes at an address."""
    found = []
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "/dev/shm/opexec-" in line or "/memfd:opexec" in line:
                start, end = (int(text, 16) for text in line.split()[0].split("-"))
                if everything or end - start == ring.CHANNEL_BYTES:
                    found.append(memoryview((ctypes.c_char * (end - start)).from_address(start)).cast("B"))
    assert found, "no segment is mapped"
    return found


def stray():
    """Writes `words` (pairs of a word's index and its value) into the channel; `pattern`, if there is any, over every byte before that."""

    def call(x, words, pattern, everything):
        y = x * 2
        if pattern.size:
            for memory in segments(bool(everything)):
                copies = -(-len(memory) // pattern.size)
                memory[:] = (pattern.tobytes() * copies)[: len(memory)]
        if words.size:
            (memory,) = segments(False)
            channel = memory.cast("Q")
            for index, value in words.tolist():
                channel[index % len(channel)] = value
        return {"y": y}

    return call
