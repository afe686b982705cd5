"""Watching one attempt: cheap polls of the latest values, a closer look at histories only when something stirs."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.attempt.folder import AttemptFolder
from pipeline.attempt.spool import Spool
from pipeline.errors import StoreAway
from pipeline.experiment.lineage import past_of
from pipeline.health.at_death import broken_at_death, rules_at_death
from pipeline.health.history import History, as_meant
from pipeline.health.monitor import foreseen, judge, never_judged, never_logged, stirring, warnings
from pipeline.health.readings import doubt
from pipeline.health.rule import Rule
from pipeline.health.verdict import Evidence, Verdict
from pipeline.tracking.patience import Stopwatch
from pipeline.tracking.runs import LadderRun
from pipeline.tracking.store import Store

SYSTEM = "system/"
"""Metrics that a thread of MLflow's logs, also while the training hangs: they are no sign of life."""
_BEST = "best/score_window"
_REST = 20.0
"""After a look at the histories of patient rules, they rest so many times as long as it took."""
REPORTS_UNTIL_JUDGED = 20
"""Polls with news after which a rule that has never been judged is told of: a minute, if every poll has news."""
_GAP_SECONDS = 2.0
"""Longest gap between two looks that counts as silence. The supervisor looks twice a second; a longer gap means that it
was stopped itself."""
_THOROUGH_SECONDS, _THOROUGH_SECONDS_WITH_NEWS = 10.0, 60.0
"""Between two looks at complete histories, while polls find nothing new and while they do. Each look without a finding
in a silence doubles the first."""
_THOROUGH_SHARE = 20
"""A look at complete histories that took a second is not repeated for so many."""
_UNASKED_SECONDS = 10.0
"""Longest time for which a store is not asked because its file has not changed."""
CALM = 3
"""Polls with news in a row in which nothing stirs, after which no verdict is foreseen any more."""
_NESTED = ""
_Words = dict[str, tuple[object, int]]
"""What a training has said in all: of each metric, and of the runs nested in its own, how much, and its newest time."""


class Watchdog:
    """Follows a run's metrics in the store, and takes there what a trainer has left in its spool.

    A poll is one call whose cost does not grow with the run. What it sees is judged by the rules; a rule that stirs
    gets the complete histories of its own metrics, and only those decide. The verdict is then that of all rules on the
    complete histories: the same that a finished run would get, whichever steps the polls have happened to see.

    The newest value of a metric is, to MLflow, the one with the highest step. A trainer whose steps start over, or
    whose first one was huge, says nothing that is newer, nor does one that logs into runs nested in its own. So the
    complete histories are looked at now and then too, and always before a hang is told.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        rules: Sequence[Rule],
        spool: Spool | None = None,
        chosen: Sequence[Rule] = (),
    ) -> None:
        """`chosen`: the rules of which the user is told if they are never judged."""
        self._chosen, self._reports = chosen, 0
        self._store, self.run_id, self.rules, self.spool = store, run_id, rules, spool
        self._looking_for = tuple(rules)
        self.last_step = -1
        self._last_seen: dict[str, tuple[int, int]] = {}
        self._own_words: dict[str, tuple[int, int]] = {}
        self._words: _Words | None = None
        self._children_spoke = False
        self._looked, self._wait, self._cost = time.monotonic(), _THOROUGH_SECONDS, 0.0
        self._quiet = Stopwatch(_GAP_SECONDS)
        self._spooled = self._sign_on_disk()
        self._marked: object = None
        self._asked = -math.inf
        self.latest: dict[str, float] = {}
        """Newest value of each metric, if that can be used: see :mod:`pipeline.health.readings`."""
        self._newest: dict[str, float] = {}
        self._doubted: set[str] = set()
        self._news: list[str] = []
        self.heard = 0
        """How often a look has found something new of the training."""
        self._judged: dict[str, float] = {}
        self._rested = -math.inf
        self._past: tuple[History | None, bool] | None = None
        self.foreseen: Verdict | None = None
        """The verdict that may come, as a rule has half of its patience."""
        self._calm = 0

    def poll(self) -> Verdict | None:
        """Delivers what is in the spool and looks once; returns a verdict if a failing rule has fired.

        Raises:
            StoreAway: the store does not answer now; nothing is lost by asking again later.
            InfrastructureFailure: it is away for good.
        """
        try:
            late = self._deliver()
            if not self._look(once=True) and not late:
                return self._look_thoroughly(_THOROUGH_SECONDS)
            self._newest |= late
            self.heard += bool(late)
            verdict, stirred = None, stirring(self._newest, self._judged, self._looking_for)
            began = time.monotonic()
            due = [rule for rule in stirred if not rule.patient or began >= self._rested]
            if due:
                history = self.history(due, once=True)
                self._foresee(foreseen(history, due))
                if judge(history, due) is not None:
                    # Another rule may have fired before, at a step that no poll has seen.
                    verdict = judge(self.history(self.rules, once=True), self.rules)
            else:
                self._foresee(None)
            if any(rule.patient for rule in due):
                self._rested = time.monotonic() + _REST * (time.monotonic() - began)
            if len(due) == len(stirred):
                self._judged = dict(self._newest)
            self._reports += self.has_logged
            if self._reports == REPORTS_UNTIL_JUDGED:
                found = self.never_judged(once=True)
                self._news += [f"rule {name} has not been judged so far: {why}" for name, why in found.items()]
                self._news += [f"{key}: so far, {why}" for key, why in self.never_met(once=True).items()]
            return verdict or self._look_thoroughly(_THOROUGH_SECONDS_WITH_NEWS)
        except StoreAway:
            self._last_seen, self._marked = {}, None  # what was seen has not been judged
            if self.spool is None or not self.spool.path.exists():  # nothing is known of it now, so silence is none
                self._quiet.restart()
            raise

    def _foresee(self, verdict: Verdict | None) -> None:
        self._calm = 0 if verdict is not None else self._calm + 1
        if verdict is not None or self._calm >= CALM:
            self.foreseen = verdict

    def note(self, verdict: Verdict) -> None:
        """Takes note of a verdict that ends nothing: polls look for no other one. :meth:`final` judges all the same."""
        self._looking_for = ()
        self._news.append(f"{verdict.name}: {verdict.sentence}; noted, the training goes on to its end")

    def _deliver(self) -> dict[str, float]:
        """Delivers what is in the spool. Returns the newest values that stand at lower steps than others before."""
        if self.spool is None:
            return {}
        delivered = self._store.deliver(self.run_id, self.spool, once=True)
        return {
            name: value
            for name, (step, value) in delivered.items()
            if value == value and name in self._last_seen and step < self._last_seen[name][0]
        }

    def _look_thoroughly(self, seconds: float) -> Verdict | None:
        """Looks at the complete histories of the rules' metrics, unless the last such look is not `seconds` ago.

        Returns a verdict if a failing rule has fired.
        """
        if time.monotonic() - self._looked < max(seconds, self._wait, _THOROUGH_SHARE * self._cost):
            return None
        began = time.monotonic()
        judged = [
            rule for rule in self._looking_for if rule.action == "fail" and set(rule.metrics) <= self._own_words.keys()
        ]
        newest = sorted(self._own_words, key=lambda name: -self._own_words[name][1])
        last = self._store.behind(self.run_id, newest, once=True)[:1]
        said = self._in_all({*(name for rule in judged for name in rule.metrics), *last})
        spoken = self._words is not None and _differ(self._words, said)
        verdict = judge(self.history(judged, once=True), judged) if judged else None
        if verdict is not None:  # the other rules have a say in where weights were good
            verdict = judge(self.history(self.rules, once=True), self.rules)
        self._looked = time.monotonic()
        self._cost = self._looked - began
        self._wait = _THOROUGH_SECONDS if spoken or self._words is None else 2 * self._wait
        self._words = (self._words or {}) | said
        if spoken:
            self._quiet.restart()
            self.heard += 1
        return verdict

    def _in_all(self, names: Iterable[str]) -> _Words:
        """What the training has said in all, of some metrics. What is derived from all of them says nothing itself."""
        own = self._store.behind(self.run_id, names, once=True)
        points = self._store.points(self.run_id, own, once=True)
        children = self._store.children(self.run_id, once=True)
        self._hear(children)
        nested = frozenset((child.run_id, child.status, child.said_last) for child in children)
        newest = max((time for child in children for _, _, time in child.said_last), default=0)
        counted = {name: (len(found), max(time for _, time, _ in found)) for name, found in points.items()}
        return {**counted, _NESTED: (nested, newest)}

    def _hear(self, children: Sequence[LadderRun]) -> None:
        """Takes note of whether runs that are nested in the training's own have metrics."""
        spoke = [child.name for child in children if child.logged]
        if spoke and not self._children_spoke:
            self._children_spoke = True
            more = f" and {len(spoke) - 1} more" if len(spoke) > 1 else ""
            self._news.append(
                f"the trainer logs to a nested run ({spoke[0]}{more}): a sign of life; rules judge only the run that "
                "MLFLOW_RUN_ID names"
            )

    def silence(self) -> float:
        """Seconds since the run last said something new, in the store or in its folder, as far as it was looked at."""
        spooled = self._sign_on_disk()
        if spooled != self._spooled:
            self._spooled = spooled
            self._quiet.restart()
        return self._quiet.look()

    def rest(self) -> None:
        """The training waits for its turn, so its silence is none."""
        self._quiet.restart()

    def has_spoken_unseen(self) -> bool:
        """Whether the training has said something since it last fell silent that no poll has seen.

        It looks at complete histories, so it is asked before a hang is told. Where nothing was counted before, the
        times of the points tell.
        """
        try:
            said = self._in_all(self._own_words)
        except StoreAway:
            return True
        before, self._words = self._words, said
        if before is None:
            seen = max((time for _, time in self._own_words.values()), default=0)
            spoken = max(time for _, time in said.values()) > seen
        else:
            spoken = _differ(before, said)
        if spoken:
            self._quiet.restart()
        return spoken

    def final(self, *, ended: bool = False) -> tuple[Verdict | None, list[Evidence]]:
        """Returns the verdict on the complete histories, and the warnings. Waits for a store that is away.

        `ended`: the training has ended by itself, as if it had been done.
        """
        self.refresh()
        history = self.history(self.rules)
        return judge(history, self.rules, ended=ended), warnings(history, self.rules, ended=ended)

    def broken_at_death(self, *, of_names: bool) -> Evidence | None:
        """The metric that was no number any more when the training died. Waits for a store that is away.

        `of_names`: as in :func:`pipeline.health.at_death.broken_at_death`.
        """
        rules = rules_at_death(self.rules)
        return broken_at_death(self.history(rules), rules, of_names=of_names)

    def never_judged(self, *, once: bool = False) -> dict[str, str]:
        """Chosen rule → why it has never been judged, for those that have not."""
        if not self._chosen:
            return {}
        return never_judged(self.history(self._chosen, once=once), self._own_words, self._chosen)

    def never_met(self, *, once: bool = False) -> dict[str, str]:
        """Key of `trainer.names` → why it names nothing, for those whose metric has not been logged."""
        unmet, logged = self._store.unmet_names(self.run_id, once=once)
        return {f"trainer.names.{name}": never_logged((metric,), logged) for name, metric in unmet.items()}

    def refresh(self) -> None:
        """Looks at the latest values, and at the best score. Waits for a store that is away."""
        self._look(once=False)
        if not self._own_words:
            self._hear(self._store.children(self.run_id))
        if "score_window" in self.latest and _BEST not in self.latest:  # a script has logged no best one
            _, values = self._store.history(self.run_id, ["score_window"]).series("score_window")
            self.latest[_BEST] = float(values[np.abs(values) < np.inf].max())

    def _look(self, *, once: bool) -> bool:
        """Returns whether there is anything new.

        `once`: the store is not asked while its file is as it was at the last answer, for some seconds at most.
        """
        mark, now = self._store.mark(), time.monotonic()
        if once and mark is not None and mark == self._marked and now - self._asked < _UNASKED_SECONDS:
            return False
        self._marked = None
        latest = self._store.latest(self.run_id, once=once)
        self._marked, self._asked = mark, now
        # By step and time, not by value: NaN differs from itself.
        seen = {name: (step, time) for name, (step, _, time) in latest.items()}
        own = {name: mark for name, mark in seen.items() if not name.startswith(SYSTEM)}
        if own != self._own_words:
            self._own_words = own
            self._quiet.restart()
            self.heard += 1
            self._words, self._wait = None, _THOROUGH_SECONDS
            self.last_step = max(step for step, _ in own.values())
        if seen == self._last_seen:
            return False
        self._last_seen = seen
        doubts = {name: doubt(name, value) for name, (_, value, _) in latest.items()}
        self._newest = {name: value for name, (_, value, _) in latest.items()}  # rules do see NaN and ±∞
        self.latest = {name: value for name, value in self._newest.items() if doubts[name] is None}
        for name, (step, value, _) in latest.items():
            if (why := doubts[name]) is not None and name not in self._doubted:
                self._doubted.add(name)
                its_own = self._store.own_name(self.run_id, name)
                if its_own != name and doubts.get(its_own) and latest[its_own][::2] == latest[name][::2]:
                    continue  # the same value, of which the user is told by the script's own name
                self._news.append(f"metric {name} is {as_meant(value):g} at step {step}; {why}")
        return True

    def news(self) -> list[str]:
        """What the user should know of the metrics, a sentence each, once."""
        news, self._news = self._news, []
        return news

    @property
    def has_logged(self) -> bool:
        """Whether the training has logged any metric itself, to its run or to one that is nested in it."""
        return bool(self._own_words) or self._children_spoke

    def _sign_on_disk(self) -> tuple[int, int] | None:
        """A mark that changes whenever the trainer writes to its spool, whatever the clocks say.

        As long as it has logged no metric, what it prints counts too: a script may load and prepare for long, and some
        log nothing before their first epoch is over.
        """
        if self.spool is None:
            return None
        log = AttemptFolder(self.spool.path.parent).log
        for path in (self.spool.path, *(() if self.has_logged else (log,))):
            with contextlib.suppress(OSError):
                status = path.stat()
                return status.st_size, status.st_mtime_ns
        return None

    def history(self, rules: Sequence[Rule], *, once: bool = False) -> History:
        """The complete histories of the metrics of some rules, and the phases; with the past, if a rule asks for it."""
        names = dict.fromkeys(["phase", *(name for rule in rules for name in rule.reads(self._newest))])
        history = self._store.history(self.run_id, names, once=once)
        of_lineage = [name for rule in rules if rule.of_lineage for name in rule.reads(self._newest)]
        if of_lineage:
            if self._past is None:  # what is over does not change
                self._past = past_of(self._store, self.run_id, of_lineage, once=once)
            history.past, history.unchanged = self._past
        return history


def _differ(before: _Words, now: _Words) -> bool:
    """Whether there is more now than before, of what was counted both times."""
    return any(before[name][0] != now[name][0] for name in before.keys() & now.keys())
