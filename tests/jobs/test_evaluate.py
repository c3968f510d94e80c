import pytest

from jobs import evaluate as job


def test_no_workers_are_refused_before_anything_starts():
    with pytest.raises(ValueError, match="--workers is 0, expected at least 1"):
        job.main(["--model", "/no/such/model", "--data", "/no/such/data", "--workers", "0"])
