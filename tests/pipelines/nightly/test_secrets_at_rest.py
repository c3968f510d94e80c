"""Nothing that a night leaves holds a secret of the addresses that it was given."""

import fsspec
import pytest
from dictionary_model import DictionarySource
from run_job import small_config
from shop_catalogue import product, products, quarantine, write_file

from pipelines.errors import RunFailedError
from pipelines.lake.storage import Storage
from pipelines.nightly.job import NightlyJob
from pipelines.nightly.settings import NightlyRequest, load_nightly_config

PASSWORD = "hunter2Hunter2"


@pytest.fixture
def secret_lake(tmp_path):
    """A lake whose address holds a password: good rows, a keyless one, a broken file."""
    uri = f"memory://lake:{PASSWORD}@host/in"
    rows = [*products(40), product(1), product(41, product_id=None)]
    local = write_file(tmp_path / "a.parquet", rows)
    Storage.of(f"{uri}/a.parquet").write_bytes(local.read_bytes())
    Storage.of(f"{uri}/b.parquet").write_bytes(f"PAR1 {PASSWORD}".encode())
    yield uri
    fsspec.filesystem("memory").rm(Storage.of(uri).path, recursive=True)


def bytes_below(folder):
    """Every name and every content, and what compressed tables say once they are read."""
    for path in folder.rglob("*"):
        yield str(path).encode()
        if path.is_file():
            yield path.read_bytes()


def night(lake, output, **gate):
    config = small_config(gate={"max_unreadable_files": 1, "max_null_rate": 1.0, **gate})
    return NightlyJob(DictionarySource(), output, config).run(NightlyRequest((lake,)))


def assert_nothing_leaked(folder, caplog):
    assert not [data for data in bytes_below(folder) if PASSWORD.encode() in data]
    assert PASSWORD not in caplog.text


def test_a_password_in_an_input_is_stored_nowhere(secret_lake, tmp_path, caplog):
    output = Storage.of(tmp_path / "out")
    night(secret_lake, output)
    entries = quarantine(output)
    assert PASSWORD not in str(entries.to_dicts())
    assert "memory://host/in/b.parquet" in entries["file"].to_list()
    assert_nothing_leaked(tmp_path / "out", caplog)


def test_nor_when_the_gate_refuses_and_plan_and_reports_stay(secret_lake, tmp_path, caplog):
    title = {"title": "nothing", "description": None}
    extra = write_file(tmp_path / "c.parquet", [product(99, **title)])
    Storage.of(f"{secret_lake}/c.parquet").write_bytes(extra.read_bytes())
    output = Storage.of(tmp_path / "out")
    for _ in range(2):  # the second continues the first
        with pytest.raises(RunFailedError) as error:
            night(secret_lake, output, max_null_rate=0.0, min_rows=1)
        assert PASSWORD not in str(error.value)
    assert_nothing_leaked(tmp_path / "out", caplog)


@pytest.mark.parametrize(
    "address",
    [
        f"hooks.slack.example.com/services/{PASSWORD}",
        f"htp://x/{PASSWORD}",
        f"http:///{PASSWORD}",
        f"https://host:port/{PASSWORD}",
        f"https://host/{PASSWORD} x",
    ],
)
@pytest.mark.parametrize("name", ["webhook", "push_gateway"])
def test_a_wrong_address_is_refused_and_not_shown(name, address):
    with pytest.raises(ValueError, match=f"{name}: .*expected an address") as error:
        load_nightly_config(None, [f"{name}={address}"])
    assert PASSWORD not in str(error.value)
