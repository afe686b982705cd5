"""Commands whose reader leaves early."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.errors import EXIT_HEALTHY


@pytest.mark.parametrize("when", ["while it prints", "before it prints"])
def test_a_reader_that_has_seen_enough_is_no_failure(when: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    code = f"""
import sys
from pipeline.cli import _shown
def show():
    print("x" * {100_000 if when == "while it prints" else 1})
    return 7
sys.exit(_shown(show))
"""
    ended = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert ended.returncode == EXIT_HEALTHY and ended.stderr == ""
