"""Processes whose clock is wrong: a small library in front of libc's shifts the time of day, and no other clock."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    const char *shift = getenv("CLOCK_IS_WRONG_BY");
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += atol(shift);
    return failed;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds) *seconds = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
"""
_VARIABLES = ("LD_PRELOAD", "CLOCK_IS_WRONG_BY")


def with_clock(environment: dict[str, str], seconds: int, folder: Path) -> dict[str, str] | None:
    """The environment of processes whose clock is wrong by so many seconds; 0: right again.

    Returns None where there is no C compiler. The library is built in the folder.
    """
    others = {name: value for name, value in environment.items() if name not in _VARIABLES}
    if seconds == 0:
        return others
    if (compiler := shutil.which("cc")) is None:
        return None
    library = folder / "wrong_clock.so"
    if not library.exists():
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(command, input=_SOURCE, encoding="utf-8", check=True)
    return {**others, "LD_PRELOAD": str(library), "CLOCK_IS_WRONG_BY": str(seconds)}
