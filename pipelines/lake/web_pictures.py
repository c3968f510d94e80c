"""A small HTTP client for addresses that strangers wrote into a table.

A name is resolved once, every address found must be public, and the connection goes to such an
address itself, so that no second answer of the name server counts; redirects are judged alike.
No credentials, no cookies, no proxies, no storage options.
"""

import errno
import http.client
import io
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

WEB_SCHEMES = frozenset({"http", "https"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 3
_BLOCK = 1 << 16
_PORTS = {"http": 80, "https": 443}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_T = TypeVar("_T")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
# Reserved ones that Python's older releases call global; Azure's host services, which look public.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "2001::/23", "3fff::/20"),
    )
)


class RefusedAddressError(ValueError):
    """An address that no picture is read from."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which nothing is waited for."""

    at: float
    seconds: float

    @staticmethod
    def after(seconds: float) -> "Deadline":
        """Return the deadline that ends in so many seconds."""
        return Deadline(time.monotonic() + seconds, seconds)

    def left(self) -> float:
        """Return the seconds that are left; TimeoutError when there are none."""
        seconds = self.at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError(f"gave no answer within {self.seconds:g} s")
        return seconds

    def call(self, work: Callable[[], _T]) -> _T:
        """Return what `work` returns, or raise what it raises; TimeoutError when it takes longer.

        For calls that have no limit of their own: the thread left behind ends by itself.
        """
        answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((work(), None))
            except BaseException as error:  # noqa: BLE001 - rises in the thread that waits
                answers.put((None, error))

        threading.Thread(target=run, daemon=True).start()
        try:
            found, error = answers.get(timeout=self.left())
        except queue.Empty:
            raise TimeoutError(f"gave no answer within {self.seconds:g} s") from None
        if error is not None:
            raise error
        return found


@dataclass(frozen=True, slots=True)
class WebClient:
    """Reads over http and https; `hosts` are allowed although their address is private."""

    hosts: frozenset[str] = field(default_factory=frozenset)

    def read(self, url: str, *, max_bytes: int, deadline: Deadline) -> bytes:
        """Return the content, cut off after `max_bytes` + 1 bytes.

        RefusedAddressError, OSError, or HTTPException where there is none.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            found = self._get(_parsed(url), max_bytes, deadline)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise RefusedAddressError(f"redirects more than {_MOST_REDIRECTS} times")

    def _get(self, url: SplitResult, max_bytes: int, deadline: Deadline) -> bytes | str:
        """Return the content, or where it is said to be."""
        stream = self._connect(url, deadline)
        try:
            stream.settimeout(deadline.left())
            stream.sendall(_request(url))
            response = http.client.HTTPResponse(_Timed(stream, deadline), method="GET")  # type: ignore[arg-type]
            response.begin()
            place = response.getheader("Location")
            if response.status in _REDIRECTS and place:
                return place
            return _content(response, max_bytes)
        finally:
            stream.close()

    def _connect(self, url: SplitResult, deadline: Deadline) -> socket.socket:
        host = _host(url)
        port = url.port or _PORTS[url.scheme]
        problem = OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
        for family, address in self._checked(host, port, deadline):
            stream = socket.socket(family, socket.SOCK_STREAM)
            try:
                stream.settimeout(deadline.left())
                stream.connect(address)
                if url.scheme == "https":
                    stream = _tls().wrap_socket(stream, server_hostname=host)
            except OSError as error:
                stream.close()
                problem = error
            else:
                return stream
        raise problem

    def _checked(
        self, host: str, port: int, deadline: Deadline
    ) -> list[tuple[socket.AddressFamily, Any]]:
        """Return the addresses of a host, resolved once; one that is not public refuses all."""
        found = deadline.call(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        for _, _, _, _, address in found:
            ip = ipaddress.ip_address(str(address[0]))
            if not is_public(ip) and not self._is_allowed(host, port, ip):
                raise RefusedAddressError(
                    f"{host} is at {ip}, which is not public; hosts of your own have to be allowed"
                )
        return [(family, address) for family, _, _, _, address in found]

    def _is_allowed(self, host: str, port: int, ip: _Address) -> bool:
        name = f"[{host}]" if ":" in host else host
        if self.hosts & {host, name, f"{name}:{port}"}:
            return True
        return any(ip in network for network in map(_network, self.hosts) if network)


def is_public(ip: _Address) -> bool:
    """Return whether an address is of the public Internet, and so is one that it carries inside."""
    if ip.version == 6 and ip in _NAT64:
        return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return True
    return ip in _GLOBAL_UNICAST and (ip.sixtofour is None or is_public(ip.sixtofour))


def check_host_rule(rule: str) -> str:
    """Return a host, host:port or network in the form that is compared; ValueError for others."""
    text = rule.strip().lower()
    if not text or "://" in text or (_network(text) is None and re.search(r"[\s/@*]", text)):
        raise ValueError(f"found {rule!r}, expected a host, host:port or network (10.0.0.0/8)")
    return text


def _network(rule: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return None


def _parsed(url: str) -> SplitResult:
    """Return the parts of an address; RefusedAddressError unless it is a plain web address."""
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise RefusedAddressError("holds characters that no address has")
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in WEB_SCHEMES and bool(_host(parts)) and parts.port != 0
    except ValueError as error:
        raise RefusedAddressError(f"is no address: {error}") from error
    if not is_web or "@" in parts.netloc:
        raise RefusedAddressError("is no http(s) address without a user's name")
    return parts


def _host(url: SplitResult) -> str:
    """Return the host in lower case ASCII; ValueError for one that is a number in disguise."""
    host = (url.hostname or "").rstrip(".")
    if "%" in host:
        raise ValueError("the host names an interface of this machine or is escaped")
    if ":" not in host:
        host = host.encode("idna").decode().lower()
        if re.fullmatch(r"\d+|0x[0-9a-f]*", host.rpartition(".")[2]):
            ipaddress.IPv4Address(host)
    return host


def _request(url: SplitResult) -> bytes:
    host, port = _host(url), url.port
    name = f"[{host}]" if ":" in host else host
    name += f":{port}" if port and port != _PORTS[url.scheme] else ""
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    quoted = "".join(c if c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in target)
    lines = (
        f"GET {quoted} HTTP/1.1",
        f"Host: {name}",
        "User-Agent: ulsdram",
        "Accept: image/*,*/*;q=0.5",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _content(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if response.status != http.client.OK:
        message = f"answered {response.status}"
        if response.status >= 500 or response.status == http.client.TOO_MANY_REQUESTS:
            raise ConnectionError(errno.ECONNABORTED, message)
        raise OSError(message)
    data = bytearray()
    while len(data) <= max_bytes:
        block = response.read(min(_BLOCK, max_bytes + 1 - len(data)))
        if not block:
            break
        data += block
    if len(data) <= max_bytes and response.length:
        raise ConnectionError(errno.ECONNRESET, f"broke off after {len(data)} bytes")
    return bytes(data)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Timed(io.RawIOBase):
    """A socket whose every read counts against one deadline: a trickle buys no time."""

    def __init__(self, stream: socket.socket, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the stream as `HTTPResponse` asks a socket for it."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._stream.settimeout(self._deadline.left())
        return self._stream.recv_into(buffer)
