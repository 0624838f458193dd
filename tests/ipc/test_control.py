"""The control socket: messages come whole, in order, with their own descriptors, whatever the other side or Ctrl-C does."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import resource
import signal
import socket
import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.ipc import control as control_module
from opexec.ipc.control import Control
from opexec.ipc.faults import PeerGone, ProtocolError
from opexec.ipc.frames import MAX_DESCRIPTORS, MAX_MESSAGE
from opexec.ipc.packing import pack

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=300)
    | st.lists(st.integers(0, 9), max_size=3)
)
MESSAGES = st.dictionaries(st.sampled_from(["a", "b", "\N{GREEK SMALL LETTER PI}"]), PLAIN).map(
    lambda rest: dict(rest, type="m")
)


@contextlib.contextmanager
def pair():
    left, right = map(Control, socket.socketpair())
    try:
        yield left, right
    finally:
        left.close()
        right.close()


@contextlib.contextmanager
def raw_peer():
    """A control socket, and the bare socket at its other end."""
    left, right = socket.socketpair()
    control = Control(left)
    try:
        yield control, right
    finally:
        control.close()
        right.close()


@contextlib.contextmanager
def pipes(count):
    made = [os.pipe() for _ in range(count)]
    try:
        yield made
    finally:
        for fd in sum(made, ()):
            os.close(fd)


def frame(message, fds=0):
    body = message if isinstance(message, bytes) else pack(message)
    return struct.pack("<II", len(body), fds) + body


def rights(fds):
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def identity(fd):
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def run_in_thread(function, *args):
    """A started thread, and a list that gets what the function returned or raised."""
    outcome = []

    def body():
        try:
            outcome.append(function(*args))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread, outcome


def wait_until(condition):
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)


# What is sent arrives


@given(st.lists(MESSAGES, min_size=1, max_size=8))
def test_messages_arrive_equal_and_in_order(messages):
    with pair() as (left, right):
        for message in messages:
            left.send(message)
        assert [right.receive(timeout=10)[0] for _ in messages] == messages
        assert right.pending() == 0


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.data())
def test_frames_cut_anywhere_arrive_whole(messages, data):
    stream = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    received = []
    with raw_peer() as (control, peer):
        for start, end in zip([0] + cuts, cuts + [len(stream)]):
            peer.sendall(stream[start:end])
            received += control.drain()
    assert received == [(message, []) for message in messages]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.booleans())
def test_descriptors_stay_with_their_message(counts, at_once):
    with pair() as (left, right), pipes(sum(counts)) as made:
        readers = [reader for reader, _ in made]
        received = []
        for number, count in enumerate(counts):
            left.send({"type": "m", "n": number}, [readers.pop(0) for _ in range(count)])
            if not at_once:
                received += right.drain()
        received += right.drain()
        assert [message["n"] for message, _ in received] == list(range(len(counts)))
        assert [len(fds) for _, fds in received] == counts
        flat = [fd for _, fds in received for fd in fds]
        try:
            assert [identity(fd) for fd in flat] == [identity(reader) for reader, _ in made]
            assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in flat)
            assert not set(flat) & set(sum(made, ())), "they are copies"
        finally:
            for fd in flat:
                os.close(fd)


def test_the_longest_message_with_the_most_descriptors_arrives():
    empty = len(pack({"type": "m", "data": b"\0" * (1 << 20)})) - (1 << 20)
    message = {"type": "m", "data": os.urandom(1) * (MAX_MESSAGE - empty)}
    with pair() as (left, right), pipes(MAX_DESCRIPTORS) as made:
        thread, outcome = run_in_thread(left.send, message, [reader for reader, _ in made])
        received, fds = right.receive(timeout=60)
        thread.join()
        for fd in fds:
            os.close(fd)
        assert outcome == [None]
        assert received == message
        assert len(fds) == MAX_DESCRIPTORS


def test_what_is_too_long_is_refused_before_anything_is_sent():
    with pair() as (left, right):
        with pytest.raises(ValueError, match="16777216 bytes"):
            left.send({"type": "m", "data": bytes(MAX_MESSAGE)})
        with pytest.raises(ValueError, match="33 descriptors"):
            left.send({"type": "m"}, [0] * (MAX_DESCRIPTORS + 1))
        left.send({"type": "next"})
        assert right.drain() == [({"type": "next"}, [])]


# Nobody blocks anybody


def test_both_sides_may_send_large_messages_at_once():
    large = {"type": "m", "data": bytes(8 << 20)}
    with pair() as sides:

        def send_then_receive(side):
            side.send(large)
            return side.receive(timeout=60)[0]

        for thread, outcome in [run_in_thread(send_then_receive, side) for side in sides]:
            thread.join()
            assert outcome == [large]


def test_a_blocked_sender_leaves_the_messages_to_a_thread_that_waits_for_them():
    large = {"type": "m", "data": bytes(4 << 20)}
    with pair() as (left, right):
        receiver, received = run_in_thread(left.receive)
        senders = [run_in_thread(side.send, large) for side in (left, right)]
        receiver.join()
        assert received == [(large, [])]
        assert right.receive(timeout=10)[0] == large
        for thread, outcome in senders:
            thread.join()
            assert outcome == [None]


def test_it_tells_when_a_send_has_taken_messages_in():
    left_socket, right_socket = socket.socketpair()
    told = threading.Event()
    left, right = Control(left_socket, on_buffered=told.set), Control(right_socket)
    try:
        right.send({"type": "early"})
        thread, outcome = run_in_thread(left.send, {"type": "m", "data": bytes(4 << 20)})
        assert told.wait(60)
        assert left.pending() == 1
        assert left.drain() == [({"type": "early"}, [])]
        assert right.receive(timeout=10)[0]["type"] == "m"
        thread.join()
        assert outcome == [None]
    finally:
        left.close()
        right.close()


def test_many_threads_send_whole_messages():
    with pair() as (left, right):

        def send(number):
            for turn in range(20):
                left.send({"type": "m", "from": number, "turn": turn, "data": bytes(30000)})

        threads = [run_in_thread(send, number) for number in range(4)]
        turns = {number: [] for number in range(4)}
        for _ in range(80):
            message, _ = right.receive(timeout=60)
            turns[message["from"]].append(message["turn"])
        for thread, outcome in threads:
            thread.join()
            assert outcome == [None]
        assert all(seen == list(range(20)) for seen in turns.values())


# Timeouts and Ctrl-C leave the stream whole


def test_receiving_ends_at_the_timeout():
    with pair() as (left, right):
        with pytest.raises(TimeoutError):
            left.receive(timeout=0)
        with pytest.raises(TimeoutError):
            left.receive(timeout=0.01)
        right.send({"type": "m"})
        assert left.receive(timeout=0) == ({"type": "m"}, [])


def test_a_message_whose_sending_timed_out_halfway_is_finished_before_the_next():
    large = {"type": "large", "data": bytes(1 << 20)}
    with pair() as (left, right), pipes(1) as made:
        with pytest.raises(TimeoutError):
            left.send(large, [made[0][0]], timeout=0.01)
        with pytest.raises(TimeoutError):
            left.send({"type": "never begun"}, timeout=0)
        thread, outcome = run_in_thread(left.send, {"type": "last"})
        message, fds = right.receive(timeout=10)
        assert message == large
        assert [identity(fd) for fd in fds] == [identity(made[0][0])]
        os.close(fds[0])
        assert right.receive(timeout=10) == ({"type": "last"}, [])
        thread.join()
        assert outcome == [None]


@contextlib.contextmanager
def interruptions(first, interval=0.0):
    """KeyboardInterrupt in this thread, after `first` seconds and then every `interval`, wherever it is within the control socket's code."""

    def interrupt(number, stack):
        while stack is not None:
            if stack.f_code.co_filename == control_module.__file__:
                raise KeyboardInterrupt
            stack = stack.f_back

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, first, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_collection")
def test_an_interrupted_receive_keeps_the_part_that_came():
    whole = frame({"type": "m", "data": bytes(range(256)) * 1000})
    with raw_peer() as (control, peer):
        peer.sendall(whole[:100000])
        with interruptions(0.02, 0.02), pytest.raises(KeyboardInterrupt):
            control.receive()
        peer.sendall(whole[100000:])
        assert control.receive(timeout=10)[0] == {"type": "m", "data": bytes(range(256)) * 1000}


def data_of(number, longest):
    return bytes([number % 251]) * (number * 97 % longest)


@pytest.mark.usefixtures("no_collection")
def test_interruptions_at_any_moment_of_receiving_break_no_message():
    with pair() as (left, right):

        def send():
            for number in range(400):
                left.send({"type": "m", "n": number, "data": data_of(number, 20000)})
            left.close()

        thread, outcome = run_in_thread(send)
        seen, interrupted, interval = [], 0, 0.001
        with interruptions(interval, interval):
            while True:
                try:
                    message, _ = right.receive(timeout=60)
                except KeyboardInterrupt:
                    interrupted += 1
                    interval *= 2  # on a busy machine a receive may take longer than any fixed time: it would never end
                    signal.setitimer(signal.ITIMER_REAL, interval, interval)
                except PeerGone:
                    break
                else:
                    if interval > 0.001:
                        interval = 0.001
                        signal.setitimer(signal.ITIMER_REAL, interval, interval)
                    assert message["data"] == data_of(message["n"], 20000)
                    seen.append(message["n"])
        thread.join()
        assert outcome == [None]
        assert seen == sorted(set(seen))
        # An interruption in receive's last steps can lose the message it was about to return, and no other.
        assert 400 - interrupted <= len(seen)
        assert interrupted


@pytest.mark.usefixtures("no_collection")
def test_interruptions_at_any_moment_of_sending_break_no_message():
    with pair() as (left, right):

        def receive():
            seen = []
            while True:
                message, _ = right.receive(timeout=60)
                if message["type"] == "stop":
                    return seen
                assert message["data"] == data_of(message["n"], 400000)
                seen.append(message["n"])

        thread, outcome = run_in_thread(receive)
        interrupted = set()
        with interruptions(0.001, 0.001):
            for number in range(150):
                try:
                    left.send({"type": "m", "n": number, "data": data_of(number, 400000)})
                except KeyboardInterrupt:
                    interrupted.add(number)
        left.send({"type": "stop"})
        thread.join()
        (seen,) = outcome
        assert seen == sorted(set(seen)), "each at most once, in order"
        assert set(range(150)) - set(seen) <= interrupted, "only interrupted ones may be missing"
        assert interrupted


# The other side goes away


def test_what_was_sent_before_the_end_is_received_first():
    with pair() as (left, right):
        left.send({"type": "last words"})
        left.close()
        assert right.drain() == [({"type": "last words"}, [])]
        for _ in range(2):
            with pytest.raises(PeerGone):
                right.drain()
            with pytest.raises(PeerGone):
                right.receive()
        with pytest.raises(PeerGone):
            right.send({"type": "m"})


def test_an_end_in_the_middle_of_a_message_says_so_and_keeps_no_descriptor(descriptors):
    with raw_peer() as (control, peer), pipes(1) as made:
        before = descriptors()
        peer.sendmsg([frame({"type": "m"}, 1)[:-1]], rights([made[0][0]]))
        peer.shutdown(socket.SHUT_RDWR)
        with pytest.raises(PeerGone, match="in the middle of a message"):
            control.receive(timeout=10)
        assert descriptors() == before


def test_a_peer_that_left_without_reading_is_gone():
    with raw_peer() as (control, peer):
        control.send({"type": "unread"})
        peer.sendall(frame({"type": "m"}))
        peer.close()
        assert control.receive() == ({"type": "m"}, [])
        with pytest.raises(PeerGone):
            control.receive()


def test_a_blocked_sender_notices_that_the_peer_has_left():
    with raw_peer() as (control, peer):
        thread, outcome = run_in_thread(control.send, {"type": "m", "data": bytes(4 << 20)})
        assert peer.recv(1)
        peer.close()
        thread.join()
        assert isinstance(outcome[0], PeerGone)


def test_closing_wakes_a_thread_that_waits():
    with pair() as (left, right):
        thread, outcome = run_in_thread(right.receive)
        wait_until(lambda: right._receiver_waits)
        right.close()
        thread.join()
        assert isinstance(outcome[0], PeerGone)
        right.close()
        assert right.fileno() == -1
        with pytest.raises(PeerGone):
            right.send({"type": "m"})


def test_closing_closes_the_descriptors_that_nobody_received(descriptors):
    with pipes(2) as made:
        before = descriptors()
        with raw_peer() as (control, peer):
            peer.sendmsg([frame({"type": "m"}, 1)], rights([made[0][0]]))
            peer.sendmsg([frame({"type": "not whole"}, 1)[:-1]], rights([made[1][0]]))
            with pytest.raises(TimeoutError):  # takes in both, and gives back neither
                control.send({"type": "m", "data": bytes(4 << 20)}, timeout=0.05)
            assert control.pending() == 1
            assert len(descriptors() - before) == 4, "two sockets, two received"
        assert descriptors() == before


def test_a_forked_copy_that_closes_does_not_end_its_parents_connection():
    with pair() as (left, right):
        child = os.fork()
        if child == 0:
            try:
                left.close()
                right.close()
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        left.send({"type": "m"})
        assert right.receive(timeout=10) == ({"type": "m"}, [])


# Nothing that comes is trusted


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"\xff" * 8, "the most is"),
        (struct.pack("<II", MAX_MESSAGE + 1, 0), "the most is"),
        (struct.pack("<II", 1, MAX_DESCRIPTORS + 1) + b"\x80", "the most is"),
        (frame(b"\xc1"), "not msgpack"),
        (frame(b""), "not msgpack"),
        (frame(b"\xdf\xff\xff\xff\xff"), "not msgpack"),
        (frame(b"\x81\xa4type\xa1"), "not msgpack"),
        (frame(b"\x81\xa4type\xa1x\x00"), "not msgpack"),
        (frame(b"\x81\xa4type\xa1\xff"), "not msgpack"),
        (frame(b"\x81\x90\x01"), "not msgpack"),
        (frame(b"\x91" * 100000), "not msgpack"),
        (frame(pack([1])), "received list"),
        (frame(pack({"kind": "m"})), "received .*kind"),
        (frame(pack({"type": 3})), 'text under "type"'),
        (frame({"type": "m"}, 1), "announces 1 descriptors, 0 came"),
    ],
)
def test_garbage_is_a_protocol_error_from_then_on(sent, complaint):
    with raw_peer() as (control, peer):
        peer.sendall(sent)
        for _ in range(2):
            with pytest.raises(ProtocolError, match=complaint):
                control.receive(timeout=10)
        peer.sendall(frame({"type": "m"}))
        with pytest.raises(ProtocolError, match=complaint):
            control.drain()


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_protocol_error(stream):
    with raw_peer() as (control, peer):
        peer.sendall(stream)
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises((ProtocolError, PeerGone)):
            while True:
                for message, _ in control.drain():
                    assert isinstance(message["type"], str)


def test_descriptors_of_no_message_are_closed(descriptors):
    with raw_peer() as (control, peer), pipes(1) as made:
        before = descriptors()
        peer.sendmsg([frame({"type": "m"})], rights(made[0]))
        with pytest.raises(ProtocolError, match="2 descriptors came that belong to no message"):
            control.receive(timeout=10)
        assert descriptors() == before


def test_more_descriptors_than_fit_are_an_error_and_none_stays_open(descriptors):
    with raw_peer() as (control, peer), pipes(1) as made:
        before = descriptors()
        peer.sendmsg([frame({"type": "m"}, 1)], rights([made[0][0]] * (MAX_DESCRIPTORS + 8)))
        with pytest.raises(ProtocolError, match="descriptors that came are lost"):
            control.receive(timeout=10)
        assert descriptors() == before


@pytest.mark.parametrize("left", range(4))
def test_a_message_that_may_lose_descriptors_is_received_with_those_that_fit(left, descriptors):
    ours, theirs = socket.socketpair()
    with pipes(2) as made:
        control, peer = Control(ours, may_lose=("m",)), Control(theirs)
        fds = [made[0][0], made[0][1], made[1][0]]
        before = descriptors()
        peer.send({"type": "n"})
        peer.send({"type": "m"}, fds)
        peer.send({"type": "n"})
        with no_more_descriptors_than(left):
            received = [control.receive(timeout=10) for _ in range(3)]
        peer.send({"type": "m"}, fds)
        received.append(control.receive(timeout=10))
        assert [message["type"] for message, _ in received] == ["n", "m", "n", "m"]
        assert [len(fds) for _, fds in received] == [0, left, 0, 3]
        for _, fds in received:
            for fd in fds:
                os.close(fd)
        assert descriptors() == before
        control.close()
        peer.close()


@contextlib.contextmanager
def no_more_descriptors_than(left):
    """This process can open so many more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(0) for _ in range(64)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(left):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


def test_a_long_message_is_put_together_once(monkeypatch):
    """Splitting again and again what is not whole yet would take quadratic time."""
    joins = []
    split = control_module.split

    def counted(chunks, *arguments):
        found, rest = split(chunks, *arguments)
        joins.append(len(rest) == 1 and len(chunks) > 1)
        return found, rest

    monkeypatch.setattr(control_module, "split", counted)
    with pair() as (left, right):
        thread, _ = run_in_thread(left.send, {"type": "m", "data": bytes(8 << 20)})
        right.receive(timeout=60)
        thread.join()
    assert not any(joins)
