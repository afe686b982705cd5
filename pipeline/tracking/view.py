"""How the MLflow UI shows an experiment: a shared view of its attempts, and the addresses of its pages.

MLflow's UI keeps a shared view in a tag of the experiment and opens it where the address names the tag's key. The
format is that of MLflow 3.17. A version that cannot read it says so, and opens the experiment as it would without.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pipeline.tracking import tags

KEY = "ladder"
"""The key of the view, and its name in the UI's menu. A view that a user shares has a key of MLflow's own."""
_SCORE = "metrics.`score_window`"
_WIDTHS = {
    "params.`training.seed`": 100,
    f"tags.`{tags.RUNG}`": 130,
    f"tags.`{tags.VERDICT}`": 190,
    f"tags.`{tags.QUALITY}`": 120,
    _SCORE: 120,
    "metrics.`score`": 100,
    "metrics.`episodes`": 110,
    "metrics.`cost/steps`": 110,
    "metrics.`cost/minutes`": 120,
    "attributes.`Duration`": 100,
}
"""The columns in their order, and their widths in pixels. The UI leaves out those of which no run has a value."""
_SECTION = "attempts"
_LINES = ("score_window", "score", "alpha_entropy_ratio", "gradient_norm", "expert_usage_max")
"""Metrics that are drawn over the steps. The UI leaves out the charts of those that no run has."""
_BARS = ("best/score_window", "cost/minutes", "cost/steps")


def shared_view() -> str:
    """The content of the tag: the attempts as rows, those with the highest score first, and charts of them.

    Sorted by their time, the UI would fold them under their parents.
    """
    section = {"uuid": _SECTION, "name": "Attempts", "display": True}
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
        "compareRunSections": [section | {"isReordered": False, "deleted": False, "isGenerated": False}],
        "compareRunCharts": [*map(_line, _LINES), *(_chart("BAR", metric) for metric in _BARS)],
    }
    return json.dumps({"name": KEY, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})


def _chart(kind: str, metric: str) -> dict[str, Any]:
    """A chart of one metric as the UI keeps it."""
    return {
        "type": kind, "uuid": f"{KEY}-{metric}", "metricSectionId": _SECTION, "metricKey": metric,
        "deleted": False, "isGenerated": False, "runsCountToCompare": 20,
    }  # fmt: skip


def _line(metric: str) -> dict[str, Any]:
    return _chart("LINE", metric) | {
        "selectedMetricKeys": [metric], "lineSmoothness": 0, "xAxisScaleType": "linear", "scaleType": "linear",
        "xAxisKey": "step", "selectedXAxisMetricKey": "", "yAxisKey": "metric", "yAxisExpressions": [],
        "range": {}, "ignoreOutliers": False, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True,
    }  # fmt: skip


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
