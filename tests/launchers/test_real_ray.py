"""A real Ray, where its program `ray` is installed: in a network of its own, since its API runs code for whoever asks.

    pip install '.[ray]'      # 320 MB

Ray and the tests are in namespaces with loopback alone. All processes end with them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SCRIPT = """
set -e
ip link set lo up
"$1" start --head --node-ip-address=127.0.0.1 --port=6379 --dashboard-host=127.0.0.1 --dashboard-port=8265 \
    --num-cpus=4 --num-gpus=0 --object-store-memory=80000000 --temp-dir="$RAY_TMPDIR" --disable-usage-stats \
    > ray.out 2>&1
exec "$2" -m pytest -q -p no:cacheprovider --rootdir="$3" "$3/tests/launchers/real_ray.py"
"""


def why_not() -> str | None:
    """Why there can be no Ray here; None: there can."""
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    if shutil.which("ray", path=path) is None:
        return "no Ray here: pip install '.[ray]'"
    if missing := [name for name in ("unshare", "ip") if shutil.which(name) is None]:
        return f"a network of Ray's own needs {', '.join(missing)}"
    alone = subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    return None if alone.returncode == 0 else "this process may not make a network of Ray's own"


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_jobs_of_a_real_ray(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    ray = shutil.which("ray", path=path)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:  # paths of sockets have 107 bytes
        own = {"RAY_TMPDIR": short, "RAY_DASHBOARD": "http://127.0.0.1:8265", "PYTHONPATH": str(ROOT)}
        alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        done = subprocess.run(
            [*alone, "sh", "-c", _SCRIPT, "sh", str(ray), sys.executable, str(ROOT)],
            cwd=tmp_path,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=500,
        )
    said = f"{done.stdout}\n{done.stderr}\n{(tmp_path / 'ray.out').read_text(errors='replace')[-2000:]}"
    assert done.returncode == 0, said
