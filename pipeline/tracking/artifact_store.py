"""Uploads and downloads. They decide over nothing: what cannot be stored is said, and the run goes on without it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import StoreAway
from pipeline.tracking.answers import Answer, understood
from pipeline.tracking.patience import Patience, answer_of

Content = TypeVar("Content")
_SECONDS, _BYTES_A_SECOND = 45.0, 250_000
"""How long a file may take."""
_AGAIN_SECONDS = 60.0
"""A place that has not taken a file is not asked for so long: there may be many files, and each would take its time."""


class NotHad(Exception):
    """An artifact could not be written or read. Its text is the cause, in one line."""


class ArtifactStore:
    """The places where the runs of one tracking store have their artifacts: folders, buckets, the server itself.

    Args:
        uri: the address of the tracking store.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._closed: dict[str, tuple[float, str]] = {}
        """Place → until when it is not asked, and why."""
        self._largest: dict[str, tuple[int, str]] = {}
        """Place → a size that it has refused, and how."""

    def attempt(
        self,
        place: str,
        call: Callable[[], Content],
        patience: Patience | None,
        wait: Callable[[], object],
        size: int = 0,
    ) -> Content:
        """Makes a call that writes or reads an artifact, twice at most.

        Args:
            place: the artifact root of the run's experiment.
            wait: returns when the tracking store answers, which artifacts may go through.
            size: bytes to send.

        Raises:
            NotHad: it could not be done.
        """
        until, why = self._closed.get(place, (0.0, ""))
        if time.monotonic() < until:
            raise NotHad(why)
        if place in self._largest and size >= self._largest[place][0]:
            raise NotHad(self._largest[place][1])
        seconds = _SECONDS + size / _BYTES_A_SECOND
        for last in (False, True):
            try:
                return answer_of(call, seconds) if patience is None else patience.within(call, seconds)
            except StoreAway as error:  # no answer in time: a second try would take as long
                answer, last = Answer(StoreAway, str(error)), True
            except Exception as error:  # the libraries of artifact stores raise what they like
                answer = understood(error, self._uri)
            if last or answer.failure is not StoreAway:
                break
            wait()
        if answer.size:
            self._largest[place] = (size, answer.text)
        else:
            self._closed[place] = (time.monotonic() + _AGAIN_SECONDS, answer.text)
        raise NotHad(answer.text)
