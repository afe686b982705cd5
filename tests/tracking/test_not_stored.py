"""What the store does not take decides over nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import requests

from pipeline.attempt.ending import Ending
from pipeline.attempt.spool import Report, Spool, SpoolWriter
from pipeline.experiment.conclude import conclude, pictures
from pipeline.experiment.watchdog import Watchdog
from pipeline.health.rule import Rule
from pipeline.health.threshold import Condition, ThresholdRule
from pipeline.health.verdict import Verdict
from pipeline.tracking import artifact_store, tags
from pipeline.tracking.patience import Patience
from pipeline.tracking.store import Store
from tests.conftest import small_config
from tests.tracking.test_answers import of_status


class Broken:
    """A store whose artifacts cannot be had, and what it was told of them."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.error, self.calls, self.told = store, Exception(), 0, list[str]()
        self.largest = 0
        store.patience = Patience(60, threading.Event(), self.told.append)
        for name in ("log_artifact", "log_text", "log_figure", "list_artifacts", "download_artifacts"):
            monkeypatch.setattr(store.client, name, self._call(getattr(store.client, name)))

    def _call(self, usual: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object) -> object:
            self.calls += 1
            size = Path(str(given[1])).stat().st_size if usual.__name__ == "log_artifact" else 0
            if size > self.largest or not self.largest:
                raise self.error
            return usual(*given)

        return call

    def attempt(self) -> tuple[str, str]:
        parent = self.store.start_parent(small_config())
        return parent, self.store.start_attempt(
            parent, small_config(), rung="v3", number=0, diff={}, warm_start=None, reason=""
        )

    def tag(self, run_id: str) -> str:
        return str(self.store.client.get_run(run_id).data.tags.get(tags.NOT_STORED, ""))


@pytest.fixture
def broken(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(empty_store, monkeypatch)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (of_status(413), "413"),
        (of_status(403), "403"),
        (of_status(503), "503"),
        (requests.ConnectionError("refused"), "no connection"),
        (PermissionError(13, "Permission denied", "/proc/served"), "/proc/served: Permission denied"),
        (OSError(28, "No space left on device"), "No space left"),
        (ModuleNotFoundError("No module named 'boto3'"), "boto3"),
        (RuntimeError("a library's own"), "a library's own"),
    ],
)
def test_a_verdict_does_not_wait_for_files(broken: Broken, error: Exception, words: str) -> None:
    broken.error, store = error, broken.store
    parent, run_id = broken.attempt()
    folder = store.root / "attempts" / run_id
    folder.mkdir(parents=True)
    (folder / "trainer.log").write_text("the log")
    conclude(store, run_id, Ending.now(Verdict(name="healthy"), 1.0), (), ())
    store.end_parent(parent, "healthy", "v3", pd.DataFrame({"rung": ["v3"]}), "a note")
    for each in (parent, run_id):
        assert store.client.get_run(each).info.status == "FINISHED"
        assert words in broken.tag(each) and "experiment.yaml: " in broken.tag(each)
    assert len([text for text in broken.told if words in text]) == len(broken.told) == 1  # once for all files
    assert "verdict.json: " in broken.tag(run_id) and "trainer.log: " in broken.tag(run_id)
    assert "mlflow.loggedArtifacts" not in store.client.get_run(parent).data.tags
    assert store.read_text(run_id, "experiment.yaml") is None
    assert broken.calls <= 7  # it is not asked again for every file


def test_what_is_small_enough_is_still_stored(broken: Broken, tmp_path: Path) -> None:
    broken.error, broken.largest, store = of_status(413), 100_000, broken.store
    _, run_id = broken.attempt()
    sizes = {"large": 200_000, "larger": 300_000, "small": 10}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
    assert [store.log_file(run_id, tmp_path / name) for name in sizes] == [False, False, True]
    assert [line.partition(":")[0] for line in broken.tag(run_id).splitlines()] == ["large", "larger"]
    broken.largest = 10**6
    store._artifact_store = artifact_store.ArtifactStore(store.uri)
    assert store.log_file(run_id, tmp_path / "large") and broken.tag(run_id).startswith("larger: ")


def test_a_second_try_where_it_may_pass(broken: Broken, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    broken.largest = 10**6
    _, run_id = broken.attempt()
    tries: list[int] = []

    def once_away(*_: object) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise requests.ConnectionError("refused")

    broken.store.client.log_artifact = once_away  # type: ignore[method-assign]
    assert broken.store.log_file(run_id, tmp_path / "file") and len(tries) == 2 and not broken.told


def test_more_params_than_a_batch_takes(empty_store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What MLflow refuses of them is left out, and said."""
    config = small_config()
    many = {f"p{number}": number for number in range(250)} | {"a long one": "x" * 7000}
    odd = {"odd+key": 1, "k" * 300: 2, "../up": 3}
    flat = {**many, **odd}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.tracking.writer.flatten", lambda _: flat)
        run_id = empty_store.start_parent(config)
        empty_store.describe(run_id, config)  # once more changes nothing
    found = empty_store.client.get_run(run_id).data
    assert set(found.params) == set(many)
    assert found.tags[tags.NOT_STORED].count("param ") == 3 and "odd+key" in caplog.text


def test_a_metric_that_mlflow_refuses_stops_no_other(empty_store: Store) -> None:
    told: list[str] = []
    empty_store.patience = Patience(60, threading.Event(), told.append)
    run_id = empty_store.start_parent(small_config())
    writer = SpoolWriter(spool := Spool(empty_store.root / "attempt"))
    for step in range(1, 31):
        writer.write({f"m/{number}": step for number in range(60)} | {"acc@1": 0.5, "x" * 251: 1.0}, step)
    empty_store.deliver(run_id, spool)
    run = empty_store.client.get_run(run_id)
    assert len(run.data.metrics) == 60 and len(empty_store.client.get_metric_history(run_id, "m/59")) == 30
    assert not spool.pending()[0] and len(told) == 1 and "acc@1" in run.data.tags[tags.NOT_STORED]


def test_a_deleted_run_that_is_at_work_is_restored(empty_store: Store) -> None:
    run_id = empty_store.start_parent(small_config())
    empty_store.client.delete_run(run_id)
    assert empty_store.parents() == [] and empty_store.begin_so(run_id) == []
    empty_store._log_reports(run_id, [Report(1, 1, {"a": 1.0})])
    run = empty_store.run(run_id)
    assert run is not None and not run.is_deleted and run.metrics == {"a": 1.0}


def test_all_pages(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.connection._AT_ONCE", 2)
    monkeypatch.setattr("pipeline.tracking.reader._FEW_AT_ONCE", 2)
    for number in range(3):
        empty_store.client.create_experiment(f"another program's {number}")
    ids = [empty_store.start_parent(small_config(experiment__name=f"e{number % 3}")) for number in range(5)]
    attempts = [
        empty_store.start_attempt(ids[0], small_config(experiment__name="e0"), rung="v3", number=number, diff={},
                                  warm_start=None, reason="")
        for number in range(5)
    ]  # fmt: skip
    assert [run.run_id for run in empty_store.parents()] == ids[::-1]
    assert [run.run_id for _, run in empty_store.newest()] == ids[::-1]
    assert len(empty_store.experiments()) == 3 and len(empty_store.left_running()) == 5
    first = empty_store.find(ids[0])
    assert [run.run_id for run in empty_store.attempts(first)] == attempts
    assert all(empty_store.find(run_id[:12]).run_id == run_id for run_id in (*ids, *attempts))
    assert empty_store.begin_so("abc") == empty_store.begin_so("%%%%%") == empty_store.begin_so("x' or '1") == []


def test_a_picture_delays_no_ending(empty_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes for ever is left out, and so are those after it."""
    run_id = empty_store.start_parent(small_config())
    empty_store.log_metrics(run_id, {"loss": 2e6}, step=1)
    rules = tuple(
        ThresholdRule(name=name, verdict="gradient_explosion", conditions=(Condition(metric="loss", above=1e6),))
        for name in ("a", "b")
    )
    drawn: list[str] = []

    def draw(_history: object, rule: Rule, _evidence: object) -> None:
        drawn.append(rule.name)
        threading.Event().wait(60)

    monkeypatch.setattr("pipeline.experiment.conclude._PICTURES_SECONDS", 0.3)
    monkeypatch.setattr("pipeline.experiment.conclude._picture", draw)
    watch = Watchdog(empty_store, run_id, rules)
    verdict, _ = watch.final()
    assert verdict is not None
    began = time.monotonic()
    found = (*verdict.evidence, *(each.model_copy(update={"rule": "b"}) for each in verdict.evidence))
    assert list(pictures(watch, found)) == [] and time.monotonic() - began < 5 and drawn[0] == "a"
