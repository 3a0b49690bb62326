"""Freed images leave the process."""

import platform
import subprocess
import sys

import pytest

# Frees a large block, which raises glibc's threshold; then frees ones between small ones it holds.
PROGRAM = """
import os
import sys

from deeplab_jax.app.page import return_large_blocks


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


assert not int(sys.argv[1]) or return_large_blocks()
block = bytes([1]) * (30 << 20)
del block
before = resident()
blocks = [(bytes([number]) * (1 << 20), bytes([number]) * 100_000) for number in range(200)]
large, small = map(list, zip(*blocks))
del blocks, large
print((resident() - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it sets an option of glibc")
def test_holes_between_small_blocks_are_given_back():
    grown = [
        int(subprocess.check_output([sys.executable, "-c", PROGRAM, option], text=True))
        for option in ("0", "1")
    ]
    assert grown[0] > 150
    # What is held are 19 MiB.
    assert grown[1] < 40
