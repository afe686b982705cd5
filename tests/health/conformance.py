"""What every kind of health rule must pass. A new kind inherits it: a subclass names a rule and two histories."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.health.history import History
from pipeline.health.plot import draw
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence


def until(history: History, step: int) -> History:
    """The history as it was when this step was the newest."""
    return History(
        {
            metric: [(at, value) for at, value in zip(*history.series(metric), strict=True) if at <= step]
            for metric in history.metrics
        }
    )


def steps_of(history: History) -> list[int]:
    """Every step at which some metric has a value, ascending."""
    return sorted({int(step) for metric in history.metrics for step in history.series(metric)[0]})


def latest(history: History) -> dict[str, float]:
    """The newest value of each metric."""
    newest = {metric: history.series(metric)[1] for metric in history.metrics}
    return {metric: float(values[-1]) for metric, values in newest.items() if len(values)}


def is_one_line(text: str) -> bool:
    return bool(text.strip()) and text.splitlines() == [text]


class RuleConformance:
    """The tests of a kind of rule.

    In a subclass, `rule` fires on `fires` and stays silent on `quiet`. Both histories have every metric of the rule.
    """

    rule: Rule
    fires: History
    quiet: History

    @pytest.fixture
    def evidence(self) -> Evidence:
        return self.rule.firings(self.fires)[0]

    def _growing(self) -> Iterator[tuple[History, list[Evidence]]]:
        """The history `fires` after each of its steps, with what the rule finds in it."""
        for step in steps_of(self.fires):
            history = until(self.fires, step)
            yield history, self.rule.firings(history)

    def test_fires_where_it_must_and_only_there(self) -> None:
        assert self.rule.missing(self.fires) == self.rule.missing(self.quiet) == ()
        assert self.rule.firings(self.fires) != [] and self.rule.firings(self.quiet) == []

    def test_the_same_history_gives_the_same_findings(self) -> None:
        again = until(self.fires, steps_of(self.fires)[-1])
        assert self.rule.firings(self.fires) == self.rule.firings(self.fires) == self.rule.firings(again)

    def test_what_comes_later_changes_no_finding(self) -> None:
        """A live run and a finished one get the same verdict."""
        whole = self.rule.firings(self.fires)
        for history, found in self._growing():
            newest = steps_of(history)[-1]
            assert found == [each for each in whole if (each.detection_step or 0) <= newest]

    def test_stirs_wherever_it_fires_at_the_newest_value(self) -> None:
        """However long ago the last look was."""
        looks: list[dict[str, float]] = [{}]
        for history, found in self._growing():
            if found and found[-1].detection_step == steps_of(history)[-1]:
                assert all(self.rule.stirs(latest(history), before) for before in looks)
            looks.append(latest(history))

    def test_is_silent_where_a_metric_is_missing(self) -> None:
        for absent in self.rule.metrics:
            names = [name for name in self.fires.metrics if name != absent]
            history = History({name: zip(*self.fires.series(name), strict=True) for name in names})
            assert self.rule.missing(history) == (absent,)
            assert self.rule.firings(history) == [] and not self.rule.stirs(latest(history), {})

    def test_evidence_can_be_stored_and_checked(self, evidence: Evidence) -> None:
        text = json.dumps(evidence.model_dump(mode="json"), allow_nan=False)
        assert Evidence.model_validate_json(text) == evidence
        assert evidence.rule == self.rule.name and evidence.metric in self.rule.watched
        assert evidence.values and evidence.onset_step is not None and evidence.detection_step is not None
        assert evidence.onset_step <= evidence.detection_step
        assert evidence.last_good_step is None or evidence.last_good_step <= evidence.detection_step

    def test_says_where_weights_may_be_bad(self, evidence: Evidence) -> None:
        ways = self.rule.worsening(self.fires, evidence)
        assert set(ways) <= set(self.rule.reads(self.fires.metrics)) and set(ways.values()) <= {-1, 1}
        for steps, held in self.rule.held(self.fires):
            assert len(steps) == len(held) and held.dtype == bool and (np.diff(steps) > 0).all()

    def test_speaks_in_single_lines(self, evidence: Evidence) -> None:
        condition, when = self.rule.describe()
        for text in (condition, when, self.rule.explain(self.quiet), self.rule.title(evidence), evidence.sentence()):
            assert is_one_line(text), text
        assert "|" not in condition + when  # it would end a cell of the table in docs/health.md

    def test_names_the_phases_that_it_judges(self) -> None:
        late = self.rule.model_copy(update={"phases": (0, 2)})
        assert late.describe().when.endswith(", in warm-up, fine-tune") and late.metrics[-1] == "phase"

    def test_curves_have_one_value_a_step(self, evidence: Evidence) -> None:
        panels = self.rule.curves(self.fires, evidence)
        assert panels and {panel.metric for panel in panels} <= set(self.rule.watched)
        for panel in panels:
            assert len(panel.steps) > 0 and (np.diff(panel.steps) > 0).all()
            assert {len(panel.values), *map(len, panel.limits)} == {len(panel.steps)}
        figure = draw(self.fires, self.rule, evidence)
        assert [axis.get_ylabel() for axis in figure.axes] == [panel.metric for panel in panels]
        figure.canvas.draw()

    def test_needs_as_many_episodes_as_it_says(self) -> None:
        if not self.rule.least_episodes:
            return
        steps, episodes = self.fires.series("episodes")
        if not len(steps):  # each report counts as one
            steps, _ = self.fires.series(self.rule.watched[0])
            episodes = np.arange(1.0, len(steps) + 1)
        for each in self.rule.firings(self.fires):
            assert episodes[np.searchsorted(steps, each.detection_step or 0)] >= self.rule.least_episodes

    def test_without_persistence_it_fires_no_later(self, evidence: Evidence) -> None:
        first = self.rule.at_once().firings(self.fires)[0]
        assert (first.detection_step or 0) <= (evidence.detection_step or 0)

    def test_is_data(self) -> None:
        """As `health.override` needs it: a rule is read back from its fields, and refuses fields that it has not."""
        kind, fields = type(self.rule), self.rule.model_dump()
        assert kind.model_validate(fields) == kind.model_validate_json(self.rule.model_dump_json()) == self.rule
        assert kind.model_validate({**fields, "action": "warn"}).action == "warn"
        with pytest.raises(ValueError, match="unheard_of"):
            kind.model_validate({**fields, "unheard_of": 1})
