"""How the MLflow UI shows an experiment: a shared view of its attempts, and the addresses of its pages.

MLflow's UI keeps a shared view in a tag of the experiment and opens it where the address names the tag's key. The
format is that of MLflow 3.17. A version that cannot read it says so, and opens the experiment as it would without.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from pipeline.tracking import tags

KEY = "ladder"
"""The key of the view. A view that a user shares has a key of MLflow's own, so none is overwritten."""
_SCORE = "metrics.`score`"
_WIDTHS = {
    "params.`training.seed`": 100,
    f"tags.`{tags.RUNG}`": 130,
    f"tags.`{tags.VERDICT}`": 190,
    f"tags.`{tags.QUALITY}`": 120,
    _SCORE: 100,
    "metrics.`episodes`": 110,
    "attributes.`Duration`": 100,
}
"""The columns in their order, and their widths in pixels."""


def shared_view() -> str:
    """The content of the tag: the attempts as rows, those with the highest score first.

    Sorted by their time, the UI would fold them under their parents.
    """
    state = {
        "searchFilter": f"tags.`{tags.KIND}` = 'attempt'",
        "orderByKey": _SCORE,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(_WIDTHS),
        "columnOrder": list(_WIDTHS),
        "columnWidths": _WIDTHS,
        "runsHiddenMode": "FIRST_20_RUNS",
        "groupBy": None,
    }
    return json.dumps(state)


def table_address(server: str, experiment_id: str) -> str:
    """Of the table of all attempts in an MLflow experiment."""
    return f"{_runs(server, experiment_id)}?viewStateShareKey={KEY}"


def charts_address(server: str, experiment_id: str, parent: str) -> str:
    """Of the charts of the attempts of one parent run, one above the other."""
    found = quote(f"tags.`{tags.PARENT}` = '{parent}'")
    return f"{_runs(server, experiment_id)}?compareRunsMode=CHART&orderByKey={quote(_SCORE)}&searchFilter={found}"


def comparison_address(server: str, experiment_id: str, runs: Sequence[str]) -> str:
    """Of MLflow's comparison of these runs: their params and metrics side by side."""
    listed = (quote(json.dumps(each, separators=(",", ":"))) for each in (list(runs), [experiment_id]))
    return "{}/#/compare-runs?runs={}&experiments={}".format(server.rstrip("/"), *listed)


def _runs(server: str, experiment_id: str) -> str:
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
