"""`ladder ui`: serves the MLflow UI, and says where in it the newest experiment is."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from pipeline.secrets import without_passwords
from pipeline.tracking.store import Store
from pipeline.tracking.view import charts_address, comparison_address, table_address

_SERVES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "PYTHONWARNINGS": "ignore",
}


def ui(store: Store, uri: str, port: int, console: Console) -> None:
    """Says where the newest experiment is; then this process becomes the server, unless the store is one already.

    Args:
        store: what there is.
        uri: its address, with its password; in the environment, where `ps` does not show it.
        port: where the server listens, on this machine alone.
        console: where it is said.
    """
    is_server = uri.startswith(("http://", "https://"))
    for line in where(store, without_passwords(uri) if is_server else f"http://127.0.0.1:{port}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if is_server:
        return
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, command, {**os.environ, **_SERVES, "MLFLOW_BACKEND_STORE_URI": uri})


def where(store: Store, server: str) -> list[str]:
    """The addresses of the newest experiment's pages, a line each with what it shows."""
    newest = next(store.newest_parents(), None)
    if newest is None:
        return [f"the MLflow UI: {server}"]
    store.offer_view(newest.experiment_id)
    attempts = [each.run_id for each in store.attempts(newest)]
    found = {f"attempts of {newest.experiment_name} by score": table_address(server, newest.experiment_id)}
    if attempts:
        found[f"charts of {newest.name}"] = charts_address(server, newest.experiment_id, newest.run_id)
    if len(attempts) > 1:
        found["its attempts side by side"] = comparison_address(server, newest.experiment_id, attempts)
    return [f"{what}: {address}" for what, address in found.items()]
