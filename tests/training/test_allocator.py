"""Freed memory is kept; the test uses a process of its own, because the setting cannot be undone."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from pipeline.training.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(500_000, dtype=np.int8) for _ in range(100)]
    while arrays:
        arrays.pop()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(), faults()
print(sum(faults() for _ in range(10)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_that_was_freed_comes_without_page_faults() -> None:
    faults = {
        how: int(subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, check=True).stdout)
        for how in ("kept", "given back")
    }
    assert faults["given back"] > 1000 and faults["kept"] < faults["given back"] / 10
