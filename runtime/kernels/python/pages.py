"""Puts the interpreter's memory into large pages.

A small cell touches some thousand pages here and there, and after a pause each costs a walk through the page tables of the
sandbox's host and, in a virtual machine, of that one's host: most of the time of `1+1`. What is loaded before the first cell
fits into a handful of large pages.
"""

import ctypes
import os

_LARGE_PAGE_BYTES = 2 << 20
_SMALL_PAGE_BYTES = 4 << 10
_MADV_COLLAPSE = 25  # <linux/mman.h>; Linux 6.1


def gather():
    """What cannot be moved (an older Linux, no memory) stays where it is."""
    if os.sysconf("SC_PAGE_SIZE") != _SMALL_PAGE_BYTES:
        return
    try:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        for start, end in _regions():
            madvise(start, end - start, _MADV_COLLAPSE)
    except (AttributeError, OSError, ValueError):
        pass


def _regions():
    """Yields the memory, other than files and stacks, that fills large pages: (start, end)."""
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        addresses, permissions, _, _, inode, *name = line.split(maxsplit=5)
        if permissions != "rw-p" or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        start = -(-start // _LARGE_PAGE_BYTES) * _LARGE_PAGE_BYTES
        end = end // _LARGE_PAGE_BYTES * _LARGE_PAGE_BYTES
        if start < end:
            yield start, end
