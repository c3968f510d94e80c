from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Address of one cluster for the whole session; with 2 logical CPUs actor pools can hang."""
    import ray

    from pipelines.cluster import connect_cluster

    connect_cluster(num_cpus=4)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
