"""A worker's death is told at once, however much memory it has.

The kernel tells that a process has ended only when it has taken down the process's memory. That takes milliseconds, and more the more there
is. Memory that another process uses too is left to that one. So a worker starts a *keeper*: a process that shares its memory, has
no descriptor, takes no signal and sleeps. The worker then ends within a tenth of a millisecond; the keeper, which is killed with the rest of the
group, takes the memory down.

It is a child of the caller, as the worker is: the caller kills and reaps both, and the kernel kills both when the caller ends. It runs no
Python and uses nothing of what it shares: each thing it does is a call of the C library that was prepared before
(makecontext(3)). It never comes back from the last one, and so does nothing in a memory that a fault may have spoilt. Where all that cannot
be, with another C library or an older kernel, there is no keeper, and a death is told when the kernel is done.
"""

from __future__ import annotations

import os
import signal
import sys

#: What it is called in lists of processes.
NAME = "opexec-keeper"

_CLONE_VM = 0x00000100  # linux/sched.h
_CLONE_PARENT = 0x00008000
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_NAME = 15
_PROT_READ_WRITE = 3  # bits/mman.h
_MAP_PRIVATE_ANONYMOUS = 0x22
_CLOSE_RANGE = 436  # the number of the system call, on every architecture
_PPOLL = {"x86_64": 271, "aarch64": 73}
_SCHED_SETSCHEDULER = {"x86_64": 144, "aarch64": 119}
_SCHED_BATCH = 3  # linux/sched.h
_ALL = 0xFFFFFFFF

# Before it, `clone` wrote into what the two processes share that their numbers are not known.
_OLDEST_GLIBC = (2, 25)

# A ucontext_t, of which that of aarch64 is the larger one, with 4,560 bytes; and where these of its fields lie on both architectures.
_CONTEXT_BYTES = 8 << 10
_LINK, _STACK, _STACK_SIZE = 8, 16, 32
_STACK_BYTES = 16 << 10

# What the calls point at, then a context and a stack for each of up to six, and a stack for the first moment.
_EACH = _CONTEXT_BYTES + _STACK_BYTES
_BYTES = 8 * _EACH


def start():
    """Start this process's keeper; returns its process id, or None where there can be none. The process's group is to be killed as a whole."""
    libc = _libc()
    if libc is None:
        return None
    from ctypes import c_long, c_void_p, memmove

    libc.mmap.restype = c_void_p
    # For good: the keeper runs on it for as long as there is one of the two processes.
    memory = libc.mmap(None, c_long(_BYTES), _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, c_long(0))
    if memory == c_void_p(-1).value:
        return None
    machine, zeros, name = os.uname()[4], memory, memory + _EACH // 2
    memmove(name, NAME.encode(), len(NAME))
    calls = [
        (libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL),
        (libc.prctl, _PR_SET_NAME, name),
        # Else taking down the memory would go before what the caller does as it learns of the death.
        (libc.syscall, _SCHED_SETSCHEDULER[machine], 0, _SCHED_BATCH, zeros),
        (libc.syscall, _CLOSE_RANGE, 0, _ALL, 0),
        (libc.syscall, _PPOLL[machine], 0, 0, 0, 0, 0),
        (libc._exit, 0),  # only where a filter of system calls refuses to let it wait
    ]
    contexts = [memory + _EACH * number for number in range(1, 1 + len(calls))]
    # As they are blocked now: a handler of Python's would run in both processes at once.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    try:
        for context, after, (function, *arguments) in zip(contexts, contexts[1:] + [0], calls):
            _prepare(libc, context, after, function, arguments)
        stack = contexts[-1] + 2 * _EACH
        flags = _CLONE_VM | _CLONE_PARENT
        pid = libc.clone(libc.setcontext, c_void_p(stack), flags, c_void_p(contexts[0]), None, None, None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid if pid > 0 else None


def _prepare(libc, context, after, function, arguments):
    """Have `context` be a call of `function`, with a stack behind it, that goes on with the context `after`."""
    from ctypes import c_long, c_void_p

    libc.getcontext(c_void_p(context))
    for field, value in (
        (_LINK, after),
        (_STACK, context + _CONTEXT_BYTES),
        (_STACK_SIZE, _STACK_BYTES),
    ):
        c_void_p.from_address(context + field).value = value
    libc.makecontext(c_void_p(context), function, len(arguments), *[c_long(one) for one in arguments])


def _libc():
    """The C library, if it and the kernel can do all that is needed; else None."""
    if os.uname()[4] not in _PPOLL or sys.maxsize < 1 << 32:
        return None
    try:
        import ctypes

        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version.restype = ctypes.c_char_p
        version = libc.gnu_get_libc_version().split(b".")
    except (ImportError, AttributeError):  # built without libffi; not the GNU C library
        return None
    if tuple(int(part) for part in version[:2]) < _OLDEST_GLIBC or libc.syscall(_CLOSE_RANGE, _ALL, _ALL, 0):
        return None
    with open("/proc/self/status") as status:
        if "shstk" in status.read():  # `setcontext` would write down where the worker's shadow stack is
            return None
    return libc


def _signals():
    """All signals but the two that the C library has for itself."""
    return {number for number in range(1, signal.NSIG) if number not in (32, 33)}
