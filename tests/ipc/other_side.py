"""A side of a channel in a process of its own: ``python -I other_side.py ROLE COUNT SIZE SEGMENT [BELL BELL]``.

Started by tests, with the descriptors of the channel segment and of the two bells, the caller's first. opexec.ipc is found as in a
worker, so the process may be of any Python >= 3.7 that has numpy and msgpack.
"""

import os
import runpy
import sys

FOREIGN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "foreign", "run.py")


def numbered(index):
    """The fields of record `index`: each has a value of its own, some with the highest bit set."""
    return 3, index, index ^ 0xFFFF_FFFF, index << 40 | 64, 2**64 - 1 - index, 3 * index


def push(producer, count):
    """Publish `count` records as fast as the consumer takes them."""
    for index in range(count):
        while not producer.publish(*numbered(index)):
            os.sched_yield()


class Sleeper:
    """Publishes and reads records, and whenever there is none to read sleeps at once, until it is woken."""

    def __init__(self, producer, consumer, bell, head):
        self._producer = producer
        self._consumer = consumer
        self._bell = bell
        self._head = head

    def send(self, index):
        assert self._producer.publish(*numbered(index))
        self._bell.ring()

    def expect(self, index):
        consumer = self._consumer
        record = consumer.peek(self._head)
        while record is None:
            self._bell.sleep(consumer.head, -1)
            record = consumer.peek(self._head)
        consumer.advance()
        assert record[:6] == numbered(index), record


def call(sleeper, count):
    for index in range(count):
        sleeper.send(index)
        sleeper.expect(index)


def answer(sleeper, count):
    for index in range(count):
        sleeper.expect(index)
        sleeper.send(index)


def main(role, count, size, segment, *bells):
    sys.dont_write_bytecode = True
    runpy.run_path(FOREIGN)["install_as_in_a_worker"]()
    from opexec.ipc.doorbell import Doorbell
    from opexec.ipc.ring import CALLER, WORKER, Consumer, Producer
    from opexec.ipc.segment import Segment
    from opexec.ipc.wire import HEAD

    map = Segment.attach("channel", segment, size).map
    if role == "push":
        push(Producer(map, WORKER, CALLER), count)
        return
    own, peer = (CALLER, WORKER) if role == "call" else (WORKER, CALLER)
    bells = bells if role == "call" else bells[::-1]
    consumer = Consumer(map, own, peer)
    sleeper = Sleeper(Producer(map, own, peer), consumer, Doorbell(consumer.words, own, peer, *bells), HEAD)
    {"call": call, "answer": answer}[role](sleeper, count)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
