"""A block of shared memory: create, map, release.

Created on the caller's side only: a POSIX shared-memory object, reserved with `posix_fallocate` so that a full /dev/shm is an error
here and not a SIGBUS at first touch, and unlinked at once so that nothing can stay behind. Where /dev/shm is too small or absent: a memfd,
sealed against shrinking. The other side gets the descriptor and maps it.

A segment is unmapped by dropping the last reference to its mapping, never by `mmap.close()`: arrays made over it hold the mapping
itself, so they stay good after the segment, the channel and the process on the other side are gone.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import uuid

PAGE = mmap.PAGESIZE

#: What tells that there is no room in /dev/shm, no such folder, or none for this process to write to.
_NOT_HERE = (errno.ENOSPC, errno.ENOENT, errno.ENOSYS, errno.EROFS, errno.EACCES, errno.EPERM)

_MADV_POPULATE_WRITE = 23  # Linux 5.14; older kernels refuse it, and pages are then touched one by one


class Segment:
    """One mapped block. `id` names it in descriptors, `size` is in bytes, `map` is the writable mapping, `fd` its descriptor or -1."""

    __slots__ = ("id", "size", "map", "fd")

    def __init__(self, id, fd, size):
        self.id = id
        self.size = size
        self.fd = fd
        self.map = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    @classmethod
    def create(cls, id, size):
        """Create and reserve a segment of at least `size` bytes (whole pages). Raises OSError (ENOSPC, ENOMEM) if it is not to be had."""
        size = -(-size // PAGE) * PAGE
        try:
            fd = _posix_object(size)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            fd = _sealed_memfd(size)
        try:
            return cls(id, fd, size)
        except BaseException:  # a mapping takes a descriptor of its own, and there may be no more
            os.close(fd)
            raise

    @classmethod
    def attach(cls, id, fd, size):
        """Map a segment received from the side that created it, and close `fd`.

        Raises ValueError if it is smaller than announced, or no memory that can be mapped.
        """
        try:
            actual = os.fstat(fd).st_size
            if size <= 0 or actual < size:
                raise ValueError(
                    "segment {}: expected {} bytes behind its descriptor, found {}".format(id, size, actual)
                )
            segment = cls(id, fd, size)
        except OSError as error:
            raise ValueError("segment {}: its descriptor cannot be mapped: {}".format(id, error)) from None
        finally:
            os.close(fd)
        segment.fd = -1
        return segment

    def populate(self):
        """Map every page now: the first touch of a page costs microseconds, which no call should pay."""
        try:
            self.map.madvise(_MADV_POPULATE_WRITE)
        except (OSError, AttributeError, ValueError):
            for offset in range(0, self.size, PAGE):
                self.map[offset]

    def close(self):
        """Close the descriptor; the mapping lives as long as anything made over it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _posix_object(size):
    import posix_ipc  # here, because only the caller's interpreter has it

    name = "/opexec-{}-{}".format(os.getpid(), uuid.uuid4().hex)  # whose it is, should anybody see it
    try:
        fd = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, size=0, mode=0o600).fd
    except posix_ipc.Error as error:  # no /dev/shm, or not for this user
        raise OSError(errno.ENOENT, str(error)) from None
    try:
        posix_ipc.unlink_shared_memory(name)
        os.posix_fallocate(fd, 0, size)
        os.set_inheritable(fd, False)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _sealed_memfd(size):
    fd = os.memfd_create("opexec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd
