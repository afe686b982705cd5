"""What `ps` shows of a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_a_password_of_the_command_line_is_hidden() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.processes.kernel_view import hide_command_line\n"
        "from pipeline.secrets import without_passwords\n"
        "hide_command_line()\n"
        "print(Path('/proc/self/cmdline').read_bytes().rstrip(b'\\0').split(b'\\0')[3:], sys.argv[1] == sys.argv[2])\n"
        "print(without_passwords('it said tuesday-7'))"
    )
    uri = "tracking.uri=http://alice:tuesday-7@127.0.0.1:1"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, uri, uri, "last"]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=100, encoding="utf-8")
    shown = [b"tracking.uri=http://alice:***@127.0.0.1:1"] * 2
    assert done.stdout.splitlines() == [f"{[*shown, b'last']} True", "it said ***"]
