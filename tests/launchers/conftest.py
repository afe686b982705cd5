"""A real Slurm for the tests that ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.slurm_cluster import SlurmCluster, why_not


@pytest.fixture(scope="module")
def slurm_cluster() -> Iterator[SlurmCluster]:
    if (missing := why_not()) is not None:
        pytest.skip(missing)
    cluster = SlurmCluster()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        yield cluster
    cluster.close()
