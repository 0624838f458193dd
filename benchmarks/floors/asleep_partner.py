"""The other side of a minimal call: ``python -I asleep_partner.py MEMORY THERE BACK PARENT`` in an interpreter of its own. Python >= 3.7.

Sleeps until its bell rings, copies 64 B out of the memory and back into it, and rings.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
import sys

import numpy as np

RECORD = struct.Struct("=8Q")
REQUEST, REPLY, INPUT, OUTPUT, BYTES = 0, 64, 4096, 8192, 3 * 4096
ONE = struct.pack("=Q", 1)


def serve(memory, there, back):
    """Answer until this process is killed: `memory` is mapped, `there` and `back` are eventfds."""
    request = np.ndarray((16,), np.float32, memory, INPUT)
    poll = select.poll()
    poll.register(there, select.POLLIN)

    def model(x):
        return {"y": x}

    while True:
        poll.poll()
        os.read(there, 8)
        record = RECORD.unpack_from(memory, REQUEST)
        memory[OUTPUT : OUTPUT + 64] = model(x=request)["y"]
        RECORD.pack_into(memory, REPLY, *record)
        os.write(back, ONE)


def main(memory, there, back, parent):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import processes  # type: ignore[import-not-found]

    processes.die_with_parent(parent)
    mapped = mmap.mmap(memory, BYTES)
    os.write(back, ONE)  # ready
    serve(mapped, there, back)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main(*map(int, sys.argv[1:]))
