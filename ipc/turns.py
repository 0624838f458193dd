"""How many blocks of one size take turns.

A core that writes where another one has just read has to take each line out of that one's cache first: a copy of 600 KB then takes 70 µs
instead of 15, on an AMD EPYC. When some more has been read, the line is there no longer, but still in the cache that the cores share. So
blocks take turns which together are somewhat larger than a core's own cache, where the shared one has plenty of room for them.
"""

import functools
import os

#: Of smaller blocks there would have to be many, to spare a microsecond or two.
_SMALLEST = 1 << 16

#: How much all blocks that take turns are, of a core's own cache, in tenths.
_TENTHS = 24

#: Up to how many times a core's own cache blocks take turns; what is larger has left it by itself.
_LARGEST = 4

#: How much larger the shared cache has to be than a core's own one, with turns in both directions and all else that is cached.
_PLENTY = 8


def blocks_in_turn(size):
    """How many blocks of `size` bytes are to take turns on this machine; 1 where it does not help, or nothing is known of its caches."""
    return turns(size, _own_cache())


def turns(size, own):
    """`blocks_in_turn`, where each core has `own` bytes of cache for itself."""
    if size < _SMALLEST or size > _LARGEST * own:
        return 1
    return max(2, -(-_TENTHS * own // (10 * size)))


def own_cache(folder="/sys/devices/system/cpu"):
    """Bytes of the largest cache that a core has for itself, if the cores share a much larger one; else 0.

    As Linux tells of the first core that this process may use. Source: Documentation/ABI/testing/sysfs-devices-system-cpu.
    """
    cpu = os.path.join(folder, "cpu{}".format(min(os.sched_getaffinity(0))))
    own = shared = 0
    try:
        threads = _read(cpu, "topology", "thread_siblings_list")
        for index in os.listdir(os.path.join(cpu, "cache")):
            if not index.startswith("index") or _read(cpu, "cache", index, "type") == "Instruction":
                continue
            size = _size(_read(cpu, "cache", index, "size"))
            if _read(cpu, "cache", index, "shared_cpu_list") == threads:
                own = max(own, size)
            else:
                shared = max(shared, size)
    except (OSError, ValueError):
        return 0
    return own if shared >= _PLENTY * own else 0


_own_cache = functools.lru_cache(maxsize=None)(own_cache)


def _read(*path):
    with open(os.path.join(*path)) as file:
        return file.read().strip()


def _size(text):
    """``"1024K"``, as all kernels write it so far."""
    if not text.endswith("K"):
        raise ValueError("the size of a cache is {!r}; expected KiB, as '1024K'".format(text))
    return int(text[:-1]) << 10
