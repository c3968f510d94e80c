"""Pictures by address: hostile addresses reach nothing, allowed ones are read within their time."""

import os
import pickle
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from pydantic import ValidationError
from s3fs import S3FileSystem

from pipelines.lake import web_pictures
from pipelines.lake.pictures import PictureAddressConfig
from pipelines.lake.storage import Storage
from pipelines.lake.web_pictures import is_public
from ulsdram_core.errors import PictureError
from ulsdram_core.reasons import Reason

PICTURE = b"bytes of a picture"
SECRET = b"bytes of a secret"


class Handler(BaseHTTPRequestHandler):
    """Answers, redirects, trickles, or breaks off; counts what reaches it."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Do what the path says."""
        self.server.seen.append((self.path, dict(self.headers)))
        getattr(self, f"_{self.path.strip('/').split('/')[0].split('.')[0]}")()

    def _answer(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _picture(self) -> None:
        self._answer(200, PICTURE)

    def _missing(self) -> None:
        self._answer(404, b"no")

    def _hop(self) -> None:
        left = int(self.path.rpartition("/")[2])
        self._answer(302, b"", Location=f"/hop/{left - 1}" if left else "/picture")

    def _away(self) -> None:
        self._answer(302, b"", Location=self.server.away)

    def _trickle(self) -> None:
        self.send_response(200)
        self.end_headers()
        self._drip(b"x")

    def _slowheaders(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        self._drip(b"y")

    def _drip(self, data: bytes) -> None:
        for _ in range(100):
            try:
                self.wfile.write(data)
                self.wfile.flush()
            except OSError:
                return
            time.sleep(0.1)

    def _broken(self) -> None:
        self._answer(200, PICTURE, **{"Content-Length": "1000"})

    def _flaky(self) -> None:
        is_first = sum(path == "/flaky" for path, _ in self.server.seen) == 1
        self._answer(503 if is_first else 200, PICTURE)

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
                self.server.sent += 1 << 16
        except OSError:
            return


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.seen, made.away, made.sent = [], "", 0
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def lake(tmp_path):
    table = tmp_path / "lake" / "table"
    (table / "pics").mkdir(parents=True)
    (table / "pics" / "a.jpg").write_bytes(PICTURE)
    (tmp_path / "secret.jpg").write_bytes(SECRET)
    (tmp_path / "lake" / "table-of-others").mkdir()
    (tmp_path / "lake" / "table-of-others" / "x.jpg").write_bytes(SECRET)
    (table / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (table / "linked").symlink_to(tmp_path)
    (table / "loop.jpg").symlink_to(table / "loop.jpg")
    os.mkfifo(table / "pipe.jpg")
    return Storage.of(table)


def url(server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


def reader(*inputs: str, **settings):
    return PictureAddressConfig(**settings).build(inputs, max_bytes=100_000)


def refusal(address: str, folder: Storage, **settings) -> Reason:
    with pytest.raises(PictureError) as caught:
        reader(folder.uri, **settings).read(address, folder)
    return caught.value.reason


@contextmanager
def watched(monkeypatch):
    """Every connection that is tried, none of which is made."""
    tried: list = []

    def connect(_: socket.socket, address) -> None:
        tried.append(address)
        raise ConnectionRefusedError("this test connects nowhere")

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        yield tried


HOSTILE = [
    "http://127.0.0.1/x.jpg",
    "http://localhost/x.jpg",
    "http://LOCALHOST./x.jpg",
    "http://0.0.0.0/x.jpg",
    "http://0/x.jpg",
    "http://2130706433/x.jpg",
    "http://0x7f000001/x.jpg",
    "http://0177.0.0.1/x.jpg",
    "http://127.1/x.jpg",
    "http://0x7f.1/x.jpg",
    "http://127.0.0.1.:80/x.jpg",
    "http://\uff11\uff12\uff17.0.0.1/x.jpg",
    "http://10.0.0.1/x.jpg",
    "http://172.16.0.1/x.jpg",
    "http://192.168.1.1/x.jpg",
    "http://100.64.0.1/x.jpg",
    "http://100.100.100.200/latest/meta-data",
    "http://169.254.169.254/latest/meta-data",
    "http://168.63.129.16/machine",
    "http://192.0.0.192/x.jpg",
    "http://224.0.0.1/x.jpg",
    "http://255.255.255.255/x.jpg",
    "http://240.0.0.1/x.jpg",
    "http://[::1]/x.jpg",
    "http://[::]/x.jpg",
    "http://[::ffff:127.0.0.1]/x.jpg",
    "http://[::127.0.0.1]/x.jpg",
    "http://[64:ff9b::7f00:1]/x.jpg",
    "http://[64:ff9b:1::7f00:1]/x.jpg",
    "http://[2002:7f00:1::]/x.jpg",
    "http://[2001:0:7f00:1::]/x.jpg",
    "http://[fd00:ec2::254]/x.jpg",
    "http://[fe80::1]/x.jpg",
    "http://[ff02::1]/x.jpg",
    "http://[fec0::1]/x.jpg",
    "http://user:word@8.8.8.8/x.jpg",
    "http://8.8.8.8@127.0.0.1/x.jpg",
    "http://127.0.0.1\\@8.8.8.8/x.jpg",
    "http://8.8.8.8/x\r\nHost: a",
    "http:///x.jpg",
    "http://8.8.8.8:0/x.jpg",
    "http://8.8.8.8:99999/x.jpg",
    "https://127.0.0.1/x.jpg",
    "ftp://127.0.0.1/x.jpg",
    "sftp://127.0.0.1/x.jpg",
    "webhdfs://127.0.0.1/x.jpg",
    "memory://x.jpg",
    "simplecache::http://127.0.0.1/x.jpg",
    "github://a:b@main/x.jpg",
    "data:image/png;base64,AAAA",
    "http://[::ffff:7f00:1]/x.jpg",
    "http://[0:0:0:0:0:ffff:169.254.169.254]/x.jpg",
    "http://[::127.0.0.1]/x.jpg",
    "http://[64:ff9b::a9fe:a9fe]/x.jpg",
    "http://[64:ff9b:1::a9fe:a9fe]/x.jpg",
    "http://[2002:7f00:1::]/x.jpg",
    "http://[2001:0:7f00:1::]/x.jpg",
    "http://[fe80::1%25lo]/x.jpg",
    "http://[::]/x.jpg",
    "http://017700000001/x.jpg",
    "http://0177.0.0.01/x.jpg",
    "http://0x7f.0x0.0x0.0x1/x.jpg",
    "http://127.1/x.jpg",
    "http://127.0.1/x.jpg",
    "http://2852039166/x.jpg",
    "http://0xa9fea9fe/x.jpg",
    "http://127.0.0.1./x.jpg",
    "http://\u2460\u2461\u2466.0.0.1/x.jpg",
    "http://127\u30020\u30020\u30021/x.jpg",
    "http://169.254.169.254:80/latest/meta-data",
    "http://100.100.100.200/x.jpg",
    "http://192.0.0.192/x.jpg",
    "http://168.63.129.16/x.jpg",
    "http://100.64.0.1/x.jpg",
    "http://198.18.0.1/x.jpg",
    "http://255.255.255.255/x.jpg",
    "http://user@127.0.0.1/x.jpg",
    "http://user:@8.8.8.8/x.jpg",
    "HTTP://LOCALHOST/x.jpg",
    "gopher://127.0.0.1:25/_HELO",
    "dict://127.0.0.1:11211/stats",
    "ldap://127.0.0.1/x",
    "jar:http://127.0.0.1!/x.jpg",
    "file://localhost/etc/passwd",
    "file:/etc/passwd",
    "FILE:///etc/passwd",
    "local:///etc/passwd",
    "http://8.8.8.8#@127.0.0.1/x.jpg\t",
    "http://8.8.8.8\uff0f@127.0.0.1/x.jpg",
    "ssh://127.0.0.1/x",
    "smb://127.0.0.1/x",
    "hdfs://127.0.0.1/x",
    "zip://x.jpg::http://127.0.0.1/x.zip",
    "filecache::file:///etc/passwd",
    "reference://x",
    "//127.0.0.1/x.jpg",
    "\\\\127.0.0.1\\x.jpg",
]


@pytest.mark.parametrize("address", HOSTILE)
def test_a_hostile_address_is_refused_without_a_connection(address, lake, monkeypatch):
    started = time.monotonic()
    with watched(monkeypatch) as tried:
        assert refusal(address, lake) == Reason.REFUSED_ADDRESS
    assert tried == []
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::"]
)
def test_public_addresses_are_public(text):
    assert is_public(ip_address(text))


def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_checked(lake, monkeypatch):
    asked = []

    def resolve(host, port, **_):
        asked.append(host)
        address = "93.184.216.34" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(web_pictures.socket, "getaddrinfo", resolve)
    with watched(monkeypatch) as tried:
        assert refusal("http://rebinds.example/x.jpg", lake) == Reason.UNREACHABLE_PICTURE
    assert asked == ["rebinds.example"]
    assert tried == [("93.184.216.34", 80)]


def test_one_private_address_among_public_ones_refuses_the_name(lake, monkeypatch):
    monkeypatch.setattr(
        web_pictures.socket,
        "getaddrinfo",
        lambda _host, port, **_: [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("93.184.216.34", "10.0.0.1")
        ],
    )
    with watched(monkeypatch) as tried:
        assert refusal("http://both.example/x.jpg", lake) == Reason.REFUSED_ADDRESS
    assert tried == []


OUTSIDE = [
    "/etc/hostname",
    "file:///etc/hostname",
    "file:/etc/hostname",
    "FILE:///etc/hostname",
    "local:///etc/hostname",
    "file://localhost/etc/hostname",
    "../../secret.jpg",
    "pics/../../../secret.jpg",
    "..\\..\\secret.jpg",
    "../table-of-others/x.jpg",
    "link.jpg",
    "linked/secret.jpg",
    "~/secret.jpg",
    "C:\\secret.jpg",
    "a\x00.jpg",
    "/proc/self/environ",
    "/dev/zero",
]


@pytest.mark.parametrize("address", OUTSIDE)
def test_nothing_outside_the_folder_of_the_table_is_read(address, lake):
    assert refusal(address, lake) == Reason.REFUSED_ADDRESS


@pytest.mark.parametrize("address", ["pipe.jpg", "loop.jpg", "pics", "absent.jpg", "x" * 5000])
def test_what_is_no_file_is_unreachable(address, lake):
    assert refusal(address, lake) == Reason.UNREACHABLE_PICTURE


def test_files_below_the_table_are_read_however_they_are_named(lake):
    path = f"{lake.path}/pics/a.jpg"
    for address in ("pics/a.jpg", "./pics//a.jpg", path, f"file://{path}", "pics/../pics/a.jpg"):
        assert reader(lake.uri).read(address, lake) == PICTURE


def test_a_folder_that_the_user_allowed_is_read(lake, tmp_path):
    allowed = reader(lake.uri, roots=(str(tmp_path),))
    for address in (str(tmp_path / "secret.jpg"), "../../secret.jpg", "link.jpg"):
        assert allowed.read(address, lake) == SECRET


def test_a_remote_table_names_no_file_of_this_machine(lake, tmp_path):
    folder = Storage.of("memory://table")
    for address in (f"{lake.path}/pics/a.jpg", f"file://{lake.path}/pics/a.jpg"):
        with pytest.raises(PictureError) as caught:
            reader(folder.uri, roots=(str(tmp_path),)).read(address, folder)
        assert caught.value.reason == Reason.REFUSED_ADDRESS


def test_objects_only_of_the_buckets_of_the_input_unless_allowed(s3_server):
    folder = Storage.of(s3_server.uri("pictures/table"), s3_server.options)
    folder.join("a.jpg").write_bytes(PICTURE)
    other = Storage.of("s3://others/a.jpg", s3_server.options)
    S3FileSystem(key="test", secret="test", endpoint_url=s3_server.endpoint).mkdir("others")
    other.write_bytes(SECRET)
    settings = PictureAddressConfig()
    strict = settings.build([folder.uri], s3_server.options)
    aliased = folder.join("a.jpg").uri.replace("s3://", "s3a://")
    for address in ("a.jpg", folder.join("a.jpg").uri, aliased):
        assert strict.read(address, folder) == PICTURE
    for address in ("s3://others/a.jpg", "s3://lake/../others/a.jpg", "../../../others/a.jpg"):
        with pytest.raises(PictureError) as caught:
            strict.read(address, folder)
        assert caught.value.reason == Reason.REFUSED_ADDRESS
    wide = PictureAddressConfig(roots=("s3://others",)).build([folder.uri], s3_server.options)
    assert wide.read("s3://others/a.jpg", folder) == SECRET


def test_http_is_read_from_allowed_hosts_whatever_the_storage_options(server, lake, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    options = {"endpoint_url": "http://127.0.0.1:9", "access_key_id": "me"}
    address = url(server, "picture.jpg?a=\u00e9#part")
    for host in ("127.0.0.1", f"127.0.0.1:{server.server_port}", "127.0.0.0/8"):
        made = PictureAddressConfig(hosts=(host,)).build([lake.uri], options)
        assert pickle.loads(pickle.dumps(made)).read(address, lake) == PICTURE
    path, headers = server.seen[0]
    assert path == "/picture.jpg?a=%C3%A9"
    assert headers["Host"] == f"127.0.0.1:{server.server_port}"
    assert not {"Authorization", "Cookie"} & headers.keys()
    assert refusal(address, lake, hosts=("127.0.0.1:1",)) == Reason.REFUSED_ADDRESS


def test_three_redirects_are_followed_and_each_is_judged(server, lake):
    allowed = {"hosts": (f"127.0.0.1:{server.server_port}",)}
    assert reader(lake.uri, **allowed).read(url(server, "hop/2"), lake) == PICTURE
    assert refusal(url(server, "hop/3"), lake, **allowed) == Reason.REFUSED_ADDRESS
    victim = socket.create_server(("127.0.0.1", 0))
    victim.settimeout(0.2)
    for away in (
        f"http://127.0.0.1:{victim.getsockname()[1]}/",
        "http://169.254.169.254/latest",
        "file:///etc/hostname",
        "s3://lake/a.jpg",
        "//[::1]/",
    ):
        server.away = away
        assert refusal(url(server, "away"), lake, **allowed) == Reason.REFUSED_ADDRESS
    with pytest.raises(TimeoutError):
        victim.accept()
    victim.close()


@pytest.mark.parametrize("path", ["trickle", "slowheaders"])
def test_a_trickling_server_costs_no_more_than_the_time_allowed(path, server, lake):
    started = time.monotonic()
    reason = refusal(url(server, path), lake, hosts=("127.0.0.1",), seconds=0.6)
    assert reason == Reason.UNREACHABLE_PICTURE
    assert time.monotonic() - started < 2


def test_a_name_server_that_does_not_answer_costs_no_more_either(lake, monkeypatch):
    monkeypatch.setattr(web_pictures.socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    started = time.monotonic()
    assert refusal("http://slow.example/", lake, seconds=0.3) == Reason.UNREACHABLE_PICTURE
    assert time.monotonic() - started < 2


def test_reading_stops_at_the_size_limit(server, lake):
    reason = refusal(url(server, "endless"), lake, hosts=("127.0.0.1",))
    assert reason == Reason.PICTURE_TOO_LARGE
    assert server.sent < 20_000_000


def test_broken_and_missing_ones_are_unreachable_and_a_busy_server_is_asked_again(server, lake):
    for path in ("broken", "missing"):
        reason = refusal(url(server, path), lake, hosts=("127.0.0.1",))
        assert reason == Reason.UNREACHABLE_PICTURE
    assert reader(lake.uri, hosts=("127.0.0.1",)).read(url(server, "flaky"), lake) == PICTURE


@pytest.mark.parametrize("rule", ["", "http://pictures", "a b", "*.example", "pictures/x"])
def test_a_rule_that_can_match_nothing_is_refused(rule):
    with pytest.raises(ValidationError, match="expected a host"):
        PictureAddressConfig(hosts=(rule,))
