"""One resolver for local paths and clouds."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.lake.errors import StorageError, UnreachableError
from pipelines.lake.storage import (
    Storage,
    file_version,
    is_transient,
    parse_options,
    retrying,
)
from pipelines.lake.tables import EXTRACTIONS, create_table, open_table
from ulsdram_core.errors import CheckpointError

NOBODY = {"endpoint_url": "http://127.0.0.1:9", "access_key_id": "me", "secret_access_key": "hush"}


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request, tmp_path) -> Storage:
    if request.param == "local":
        return Storage.of(tmp_path / "folder")
    if request.param == "memory":
        return Storage.of(f"memory://{tmp_path.name}")
    server = request.getfixturevalue("s3_server")
    return Storage.of(server.uri(tmp_path.name), server.options)


def test_write_read_list_delete(folder):
    assert folder.names() == []
    folder.join("a", "b.txt").write_bytes(b"one")
    folder.join("a", "b.txt").write_bytes(b"two")
    folder.join("c").write_bytes(b"")
    assert folder.names() == ["a", "c"]
    assert folder.join("a", "b.txt").read_bytes() == b"two"
    assert folder.join("a").is_folder()
    assert folder.join("c").exists()
    folder.join("a").delete()
    folder.join("missing").delete()
    assert folder.names() == ["c"]
    with pytest.raises(FileNotFoundError):
        folder.join("a", "b.txt").read_bytes()


def test_the_first_conditional_put_wins(folder):
    place = folder.join("lock")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: place.write_if_absent(f"{i}".encode()), range(8)))
    assert sum(won) == 1
    assert place.read_bytes() == str(won.index(True)).encode()
    assert place.write_if_absent(place.read_bytes())  # ours, whose answer was lost
    assert not place.write_if_absent(b"other")


def test_arrow_sees_the_same_files(folder):
    place = folder.join("table.parquet")
    folder.make_folder()
    pq.write_table(pa.table({"x": [1, 2]}), place.path, filesystem=place.arrow)
    assert pq.read_table(place.path, filesystem=place.arrow)["x"].to_pylist() == [1, 2]


def test_polars_reads_with_the_same_options(s3_server):
    place = Storage.of(s3_server.uri("polars/x.parquet"), s3_server.options)
    pq.write_table(pa.table({"x": [1, 2]}), place.path, filesystem=place.arrow)
    frame = pl.read_parquet(place.uri, storage_options=place.polars_options)
    assert frame["x"].to_list() == [1, 2]


def test_endpoint_may_come_from_the_environment(s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    place = Storage.of(s3_server.uri("environment"))
    place.join("x").write_bytes(b"1")
    assert place.names() == ["x"]
    assert place.delta_options["aws_allow_http"] == "true"


def test_local_copy_of_a_folder(folder):
    folder.join("model", "config.json").write_bytes(b"{}")
    folder.join("model", "deep", "x").write_bytes(b"1")
    with folder.join("model").local_copy() as local:
        assert (local / "config.json").read_bytes() == b"{}"
        assert (local / "deep" / "x").read_bytes() == b"1"
    assert local.exists() == folder.is_local


def test_what_a_copy_is_blamed_for_names_its_origin():
    place = Storage.of("memory://lake/model")
    place.join("config.json").write_bytes(b"{}")
    with pytest.raises(CheckpointError) as caught, place.local_copy() as local:
        raise CheckpointError(f"{local} holds no model.safetensors")
    assert caught.value.__notes__ == [f"{local} was a copy of memory://lake/model"]


def test_local_copy_of_nothing(s3_server):
    place = Storage.of(s3_server.uri("nothing"), s3_server.options)
    with pytest.raises(StorageError, match="found nothing at"), place.local_copy():
        pass


def test_secrets_stay_out_of_sight():
    place = Storage.of("s3://b/x", {"secret_access_key": "hush", "access_key_id": "me"})
    assert "hush" not in repr(place) + str(place)
    assert pickle.loads(pickle.dumps(place)) == place


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b/", "/a/b"),
        ("file:///a/b%20c", "/a/b c"),
        ("s3://bucket/x/", "s3://bucket/x"),
    ],
)
def test_uris_are_normalised(uri, expected):
    assert Storage.of(uri).uri == expected


def test_options_of_other_clouds_are_left_aside():
    options = {"AWS_REGION": "eu-1", "account_name": "x"}
    assert Storage.of("s3://b/x", options).options == {"region": "eu-1"}
    assert Storage.of("/tmp/x", options).options == {}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Storage.of(""), "empty path"),
        (lambda: Storage.of("s3://b/x", {"regoin": "x"}), "found storage option 'regoin'"),
        (lambda: parse_options(["key"]), "write KEY=VALUE"),
    ],
)
def test_wrong_requests(call, message):
    with pytest.raises(StorageError, match=message):
        call()


def test_only_failed_requests_are_tried_again():
    calls = []

    def fails(error, times):
        def call():
            calls.append(1)
            if len(calls) <= times:
                raise error
            return "done"

        calls.clear()
        return call

    assert retrying(fails(OSError(5, "reset"), 2), first_wait=0.001) == "done"
    with pytest.raises(OSError, match="reset"):
        retrying(fails(OSError(5, "reset"), 9), first_wait=0.001)
    with pytest.raises(FileNotFoundError):
        retrying(fails(FileNotFoundError(2, "gone"), 1))
    assert len(calls) == 1
    assert not is_transient(OSError("Couldn't deserialize thrift"))


@pytest.fixture
def _no_credentials(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.mark.parametrize(
    "ask", [Storage.exists, Storage.is_folder, Storage.names, Storage.files, Storage.fetch_to]
)
@pytest.mark.usefixtures("_no_credentials")
def test_storage_without_credentials_is_told_in_a_line(ask, tmp_path):
    # a region of its own: the filesystem of other tests may have credentials at hand
    place = Storage.of("s3://bucket/x", {"region": "eu-north-1"})
    arguments = (tmp_path,) if ask is Storage.fetch_to else ()
    with pytest.raises(StorageError, match=r"cannot reach s3://bucket/x.*access_key_id") as error:
        ask(place, *arguments)
    assert not is_transient(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("gs://b/x", "pip install gcsfs"),
        ("abfss://c@a/x", "pip install adlfs"),
        ("no://x", "s3://"),
    ],
)
def test_a_missing_client_is_named(uri, advice, monkeypatch):
    def lacks(scheme, **_options):
        if scheme == "gs":
            raise ImportError("not installed")
        raise ValueError(f"Protocol not known: {scheme}")

    monkeypatch.setattr("fsspec.filesystem", lacks)
    with pytest.raises(StorageError, match=f"cannot reach {uri}.*{advice}"):
        Storage.of(uri).exists()


def test_an_endpoint_that_does_not_answer_is_told_and_may_be_tried_again(monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(UnreachableError, match=r"s3://bucket/x.*127\.0\.0\.1:9") as error:
        Storage.of("s3://bucket/x", NOBODY).exists()
    assert is_transient(error.value)
    assert "hush" not in str(error.value)


def test_a_forbidden_place_is_told(monkeypatch):
    place = Storage.of("memory://forbidden")

    def refuse(_path):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(place.fs, "exists", refuse, raising=False)
    with pytest.raises(StorageError, match="Access Denied; check the credentials"):
        place.exists()


def test_files_are_listed_in_order(folder):
    for name in ("b/2", "a", "b/1"):
        folder.join(name).write_bytes(b"xy")
    files = folder.files()
    assert [path.rpartition(folder.name + "/")[2] for path in files] == ["a", "b/1", "b/2"]
    assert {info["size"] for info in files.values()} == {2}


@pytest.mark.parametrize("name", ["t[12]", "t?", "t*"])
def test_a_name_is_no_pattern(folder, name):
    if folder.is_local and name != "t[12]":
        pytest.skip("said once")
    folder.join(name, "x").write_bytes(b"own")
    folder.join("t1", "x").write_bytes(b"other")
    with folder.join(name).local_copy() as copy:
        assert [path.read_bytes() for path in copy.iterdir()] == [b"own"]
    folder.join(name, "x").delete()
    folder.join(name).delete()
    assert folder.names() == ["t1"]


@pytest.mark.parametrize("name", ["a%20b", "a%25"])
def test_tables_below_a_percent_sign_are_refused_in_one_line(folder, name):
    place = folder.join(name)
    with pytest.raises(StorageError, match="rename the folder"):
        open_table(place, EXTRACTIONS)
    with pytest.raises(StorageError, match="rename the folder"):
        create_table(place, EXTRACTIONS, num_buckets=2)
    assert folder.names() == []


@pytest.mark.parametrize("uri", ["s3://b/x", "gs://b/x", "abfss://b/x", "az://b/x"])
def test_no_listing_of_a_cloud_is_kept(monkeypatch, uri):
    monkeypatch.setattr("fsspec.filesystem", lambda _scheme, **options: options)
    assert Storage.of(uri).fs["use_listings_cache"] is False


def test_a_version_is_that_of_the_content_where_the_storage_knows_one():
    assert file_version({"ETag": '"abc"', "LastModified": 1}) == "abc"
    assert file_version({"mtime": 1.5, "ino": 7}) != file_version({"mtime": 1.5, "ino": 8})
