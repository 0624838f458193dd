"""A segment leaves no name behind, is checked when it arrives, and its memory lives as long as anything looks at it."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import sys

import numpy as np
import pytest

from opexec.ipc.segment import PAGE, Segment


@pytest.fixture
def attached():
    """Attaches segments by a copy of a descriptor, as the other side gets it."""

    def attach(segment, size=None, id=None):
        return Segment.attach(
            segment.id if id is None else id, os.dup(segment.fd), segment.size if size is None else size
        )

    return attach


def test_it_has_whole_pages_and_is_reserved(segments):
    segment = segments(PAGE + 1)
    assert segment.size == 2 * PAGE == len(segment.map)
    assert os.fstat(segment.fd).st_blocks * 512 >= segment.size, "not reserved: first touch could be a SIGBUS"
    assert bytes(segment.map) == bytes(2 * PAGE)


def test_no_name_is_left(segments):
    segment = segments(PAGE)
    assert os.fstat(segment.fd).st_nlink == 0
    assert not os.get_inheritable(segment.fd), "every child of the caller would inherit it"


def test_both_sides_see_the_same_bytes(segments, attached):
    segment = segments(PAGE)
    other = attached(segment)
    assert (other.id, other.size, other.fd) == (segment.id, segment.size, -1)
    other.map[5] = 77
    assert segment.map[5] == 77


def test_attaching_takes_the_descriptor(segments):
    segment = segments(PAGE)
    for size in (PAGE, 2 * PAGE):
        fd = os.dup(segment.fd)
        try:
            Segment.attach(0, fd, size)
        except ValueError:
            pass
        with pytest.raises(OSError):
            os.fstat(fd)


@pytest.mark.parametrize("size", [PAGE + 1, 2 * PAGE, 2**62, 2**64 - 1, 0, -1, -PAGE])
def test_a_size_that_is_not_there_is_refused(segments, attached, size):
    segment = segments(PAGE)
    with pytest.raises(
        ValueError, match="segment 0: expected {} bytes behind its descriptor, found {}".format(size, PAGE)
    ):
        attached(segment, size)


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "read-only file"])
def test_a_descriptor_that_is_no_segment_is_refused(kind, tmp_path):
    import socket

    if kind == "pipe":
        fd, other = os.pipe()
        os.close(other)
    elif kind == "socket":
        fd = socket.socket().detach()
    elif kind == "directory":
        fd = os.open(str(tmp_path), os.O_RDONLY)
    else:
        path = tmp_path / "file"
        path.write_bytes(bytes(PAGE))
        fd = os.open(str(path), os.O_RDONLY)
    with pytest.raises(ValueError, match="segment 9"):
        Segment.attach(9, fd, 16)
    with pytest.raises(OSError):
        os.fstat(fd)


def test_views_survive_whoever_made_them(segments, attached):
    segment = segments(PAGE)
    other = attached(segment)
    segment.map[:4] = b"abcd"
    view = np.ndarray((4,), np.uint8, other.map, 0)
    part = view[1:3]
    other.close()
    segment.close()
    del other, view
    gc.collect()
    assert part.tobytes() == b"bc"


def test_dropping_the_last_reference_unmaps():
    def mapped():
        with open("/proc/self/maps") as maps:
            return sum("opexec-" in line for line in maps)

    before = mapped()
    segment = Segment.create(0, PAGE)
    view = np.ndarray((4,), np.uint8, segment.map, 0)
    segment.close()
    del segment
    assert mapped() == before + 1
    del view
    gc.collect()
    assert mapped() == before


def test_closing_twice_closes_no_other_descriptor(segments):
    segment = segments(PAGE)
    segment.close()
    reused = os.open("/dev/null", os.O_RDONLY)
    segment.close()
    os.fstat(reused)
    os.close(reused)


@pytest.mark.parametrize("madvise", ["as it is", "refused"])
def test_populating_maps_every_page_and_changes_none(segments, monkeypatch, madvise):
    segment = segments(64 * PAGE)
    segment.map[PAGE : PAGE + 3] = b"abc"
    if madvise == "refused":  # by a kernel before 5.14
        monkeypatch.setattr("opexec.ipc.segment._MADV_POPULATE_WRITE", 9999)
    segment.populate()
    assert resident(segment) == segment.size
    assert segment.map[PAGE : PAGE + 3] == b"abc"


def resident(segment):
    """Bytes of a segment that this process has mapped, from /proc/self/smaps."""
    address = "{:x}-".format(np.frombuffer(segment.map, np.uint8).__array_interface__["data"][0])
    with open("/proc/self/smaps") as smaps:
        found = False
        for line in smaps:
            found = found or line.startswith(address)
            if found and line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise AssertionError("not mapped")


# Where POSIX shared memory is not to be had. Only the caller's side creates segments, in Python 3.10 or later.
if sys.version_info >= (3, 10):
    import posix_ipc

    @pytest.fixture(params=[errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.ENOSYS], ids=errno.errorcode.get)
    def no_posix(request, monkeypatch):
        """/dev/shm is too small, closed to this user, or missing."""
        if request.param == errno.ENOSPC:
            reserve, sizes = os.posix_fallocate, []

            def full(fd, offset, size):
                sizes.append(size)
                if len(sizes) == 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                reserve(fd, offset, size)

            monkeypatch.setattr(os, "posix_fallocate", full)
            return
        refusal = {
            errno.EACCES: posix_ipc.PermissionsError("No permission to create this segment"),
            errno.ENOENT: posix_ipc.ExistentialError("No shared memory exists with the specified name"),
            errno.ENOSYS: OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)),
        }[request.param]

        def refuse(*arguments, **more):
            raise refusal

        monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)

    def test_a_memfd_stands_in_and_cannot_be_shrunk(no_posix, attached, descriptors):
        before = descriptors()
        segment = Segment.create(4, 3 * PAGE)
        assert segment.size == 3 * PAGE and os.fstat(segment.fd).st_blocks * 512 >= segment.size
        assert not os.get_inheritable(segment.fd)
        other = attached(segment)
        for size in (0, PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(segment.fd, size)
        other.map[3 * PAGE - 1] = 9
        assert segment.map[3 * PAGE - 1] == 9
        segment.close()
        del segment, other
        assert descriptors() == before, "a descriptor was left open"

    def test_where_nothing_helps_the_error_says_so_and_nothing_is_left(monkeypatch, descriptors):
        def full(fd, offset, size):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = descriptors()
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(OSError) as raised:
            Segment.create(0, PAGE)
        assert raised.value.errno == errno.ENOSPC
        assert descriptors() == before

    def test_too_many_open_files_is_no_reason_for_a_memfd(monkeypatch):
        def refuse(*arguments, **more):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
        with pytest.raises(OSError) as raised:
            Segment.create(0, PAGE)
        assert raised.value.errno == errno.EMFILE


def test_the_mapping_is_shared_and_not_a_copy(segments):
    segment = segments(PAGE)
    second = mmap.mmap(segment.fd, PAGE)
    second[0] = 1
    assert segment.map[0] == 1
