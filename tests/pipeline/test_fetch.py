"""Fetching against a real server: what is allowed, who gets the headers, and every limit."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from worker.contract import embedded_address
from worker.errors import ImageError, ImageFetchError, ImageRefusedError
from worker.images import FetchPolicy, fetch
from worker.images.addresses import is_public
from worker.images.fetch import printable

PICTURE = b"\x89PNG not really, fetching does not look inside"
INLINE = "data:image/png;base64," + base64.b64encode(PICTURE).decode()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str, str | None]] = []
        self.redirects: dict[str, str] = {}
        self.sent: list[str] = []
        """Paths of the endless answers that somebody waited for to the end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"], self.headers.get("Authorization")))
        path = self.path.partition("?")[0]
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.end_headers()
        elif path.startswith("/status/"):
            self.send_response(int(path[8:]))
            self.end_headers()
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(10_000):
                self.wfile.write(bytes(65536))
        elif path in ("/drip", "/drip-headers"):
            begin = b"HTTP/1.0 200 OK\r\n" + (b"\r\n" if path == "/drip" else b"X-Padding: ")
            self.wfile.write(begin)
            for _ in range(100):  # for ten seconds, never silent for as long as the limit
                self.wfile.write(b"x")
                time.sleep(0.1)
            self.wfile.write(b"\r\n\r\n")
            self.server.sent.append(path)
        elif path == "/api/tasks" and "project=3" in self.path:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"tasks": [{"id": 7, "data": {"pages": ["data:,no", INLINE]}}]}).encode())
        elif path == "/silent":
            time.sleep(5)
        elif path == "/declared":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def other() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def secret(url: str) -> dict[str, str]:
    return {"Authorization": "Bearer secret"}


def test_configured_hosts_are_asked_without_label_studios_headers(server: Server) -> None:
    policy = FetchPolicy(hosts=("127.0.0.1",), headers=secret, studio_url="http://127.0.0.1:1")
    assert fetch(f"{server.url}/cat.png", policy) == PICTURE
    assert server.seen == [("/cat.png", f"127.0.0.1:{server.server_port}", None)]


@pytest.mark.parametrize(
    "path", ["/data/upload/1/cat%20one.png", "/data/local-files/?d=cats/one.png", "/tasks/3/resolve/?fileuri=czM6"]
)
def test_label_studio_gets_its_headers(server: Server, path: str) -> None:
    policy = FetchPolicy(studio_url=server.url, headers=secret)
    assert fetch(path, policy) == PICTURE
    assert fetch(server.url + path, policy) == PICTURE
    port = server.server_port
    assert server.seen == [(path, f"127.0.0.1:{port}", "Bearer secret")] * 2


@pytest.mark.parametrize("path", ["/studio/data/upload/1/cat.png", "/data/upload/1/cat.png"])
def test_label_studio_under_a_prefix(server: Server, path: str) -> None:
    policy = FetchPolicy(studio_url=server.url + "/studio", headers=secret)
    assert fetch(path, policy) == PICTURE
    assert server.seen[0][0] == "/studio/data/upload/1/cat.png"


def test_another_port_of_label_studios_machine_is_refused(server: Server, other: Server) -> None:
    policy = FetchPolicy(studio_url=server.url, headers=secret)
    with pytest.raises(ImageRefusedError, match="BOXLIFT_IMAGE_HOSTS"):
        fetch(other.url + "/cat.png", policy)
    assert other.seen == []


def test_redirects_are_checked_again_and_lose_the_headers(server: Server, other: Server) -> None:
    server.redirects["/data/upload/1/cat.png"] = other.url + "/stored.png"
    refused = FetchPolicy(studio_url=server.url, headers=secret)
    with pytest.raises(ImageRefusedError):
        fetch("/data/upload/1/cat.png", refused)
    assert other.seen == []
    allowed = FetchPolicy(studio_url=server.url, headers=secret, hosts=(f"127.0.0.1:{other.server_port}",))
    assert fetch("/data/upload/1/cat.png", allowed) == PICTURE
    assert other.seen[0][2] is None


def test_redirects_to_other_schemes_are_refused(server: Server) -> None:
    server.redirects["/a"] = "file:///etc/passwd"
    with pytest.raises(ImageRefusedError):
        fetch(server.url + "/a", FetchPolicy(hosts=("127.0.0.1",)))


def test_relative_redirects_and_loops(server: Server) -> None:
    server.redirects |= {"/a": "b", "/loop": "/loop"}
    policy = FetchPolicy(hosts=("127.0.0.1",))
    assert fetch(server.url + "/a", policy) == PICTURE
    with pytest.raises(ImageFetchError, match="redirects more than 5 times"):
        fetch(server.url + "/loop", policy)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]",  # noqa: S104
     "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "192.168.1.1", "[fe80::1]", "LOCALHOST."],
)  # fmt: skip
def test_any_public_host_does_not_mean_private_ones(server: Server, host: str) -> None:
    with pytest.raises(ImageError, match=r"not public|not a valid address"):
        fetch(f"http://{host}:{server.server_port}/cat.png", FetchPolicy(hosts=("*",)))
    assert server.seen == []


def test_a_name_is_judged_by_what_it_resolves_to_and_connected_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"rebinding.test": ["93.184.216.34", "127.0.0.1"], "inside.test": ["127.0.0.1"]}
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answers.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    port = server.server_port
    with pytest.raises(ImageRefusedError, match="not public"):
        fetch(f"http://rebinding.test:{port}/cat.png", FetchPolicy(hosts=("*",)))
    assert server.seen == []
    asked.clear()
    assert fetch(f"http://inside.test:{port}/cat.png", FetchPolicy(hosts=("inside.test",))) == PICTURE
    assert asked.count("inside.test") == 1  # connects to the address that was checked, never to the name again
    assert server.seen == [("/cat.png", f"inside.test:{port}", None)]


def test_unlisted_hosts_are_refused_before_they_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("looked up"))
    with pytest.raises(ImageRefusedError, match=r"add pictures\.example"):
        fetch("https://pictures.example/cat.png", FetchPolicy(hosts=("example.org",)))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.8.9.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("198.18.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:5ef5:79fd:0:0:80ff:fffe", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_limits_of_size_and_time(server: Server) -> None:
    policy = FetchPolicy(hosts=("127.0.0.1",), max_bytes=1 << 20, timeout=0.5)
    for path, message in [
        ("/endless", "larger than"),
        ("/declared", "larger than"),
        ("/drip", "longer than"),
        ("/drip-headers", "longer than"),
        ("/silent", "longer than"),
    ]:
        with pytest.raises(ImageFetchError, match=message) as caught:
            fetch(server.url + path, policy)
        assert caught.value.retryable is (message == "longer than")
    assert server.sent == [], "what came drop by drop was waited for"


@pytest.mark.parametrize(
    ("status", "retryable"), [(404, False), (401, False), (403, False), (500, True), (503, True), (429, True)]
)
def test_statuses(server: Server, status: int, retryable: bool) -> None:
    with pytest.raises(ImageFetchError, match=str(status)) as caught:
        fetch(f"{server.url}/status/{status}", FetchPolicy(hosts=("127.0.0.1",)))
    assert caught.value.retryable is retryable


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ImageFetchError, match="cannot be fetched") as caught:
        fetch(f"http://127.0.0.1:{port}/cat.png", FetchPolicy(hosts=("127.0.0.1",)))
    assert caught.value.retryable


def test_data_uris() -> None:
    policy = FetchPolicy(max_bytes=100)
    coded = base64.b64encode(PICTURE).decode()
    assert fetch(f"data:image/png;base64,{coded}", policy) == PICTURE
    assert fetch("data:,a%20b", policy) == fetch("\x00 DATA:,a%20b", policy) == b"a b"
    assert embedded_address(1, 2, "\x00 DATA:,a%20b").startswith("/api/tasks")  # jobs carry no image bytes
    for bad in ("data:image/png;base64", "data:image/png;base64,!!!", "data:image/png;base64,A"):
        with pytest.raises(ImageFetchError):
            fetch(bad, policy)
    with pytest.raises(ImageFetchError, match="larger than"):
        fetch("data:;base64," + base64.b64encode(bytes(101)).decode(), policy)


def test_data_uris_inside_tasks_are_read_from_label_studio(server: Server) -> None:
    policy = FetchPolicy(studio_url=server.url, headers=secret)
    address = embedded_address(3, 7, INLINE)
    assert len(address) < 80
    assert fetch(address, policy) == PICTURE
    [(path, _, token)] = server.seen
    assert "id%22%2C" in path
    assert "%227%22" in path
    assert token == "Bearer secret"
    with pytest.raises(ImageFetchError, match="no longer in the task's data"):
        fetch(embedded_address(3, 7, "data:,other"), policy)
    with pytest.raises(ImageFetchError, match="does not answer with tasks"):
        fetch(embedded_address(4, 7, INLINE), policy)
    with pytest.raises(ImageRefusedError, match="LABEL_STUDIO_URL"):
        fetch(address, FetchPolicy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "cats").mkdir(parents=True)
    (root / "cats" / "one two.png").write_bytes(PICTURE)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "self.png").symlink_to(root / "self.png")
    os.mkfifo(root / "pipe.png")
    return root


@pytest.mark.parametrize("uri", ["s3://animals/a b.jpg", "GS://animals/ä.jpg", "azure-blob://animals/1.jpg"])
def test_cloud_storage_is_looked_up_by_label_studio(uri: str) -> None:
    address = urlsplit(embedded_address(3, 7, uri))
    assert address.path == "/tasks/7/resolve/"
    assert base64.urlsafe_b64decode(parse_qs(address.query)["fileuri"][0]).decode() == uri
    assert embedded_address(0, 0, uri) == uri  # without Label Studio nobody has the keys


def test_files_inside_the_roots(folder: Path) -> None:
    policy = FetchPolicy(roots=(folder,))
    path = folder / "cats" / "one two.png"
    for url in (str(path), path.as_uri(), "cats/one two.png", "cats/one%20two.png",
                "/data/local-files/?d=cats/one%20two.png"):  # fmt: skip
        assert fetch(url, policy) == PICTURE


@pytest.mark.parametrize(
    "url",
    ["/etc/passwd", "file:///etc/passwd", "../secret.png", "cats/../../secret.png", "link.png", "self.png", "cats",
     "/data/local-files/?d=../secret.png", "/data/local-files/?d=/etc/passwd",
     "/data/local-files/?d=%2e%2e/secret.png",
     "/data/local-files/", "pipe.png", "gone.png", "nul%00.png", "x" * 5000, ""],
)  # fmt: skip
def test_files_outside_are_refused(folder: Path, url: str) -> None:
    with pytest.raises(ImageRefusedError):
        fetch(url, FetchPolicy(roots=(folder,)))


def test_large_files(folder: Path) -> None:
    with pytest.raises(ImageFetchError, match="larger than"):
        fetch("cats/one two.png", FetchPolicy(roots=(folder,), max_bytes=3))


@pytest.mark.parametrize("url", ["s3://bucket/cat.png", "gs://b/c.png", "ftp://h/c.png", "javascript:alert(1)"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ImageRefusedError, match="cannot be read"):
        fetch(url, FetchPolicy(hosts=("*",)))


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[::1", "http://exa mple/", "https://:80/", "http://a:99999/x", "//[", "da\nta:,x", "http://\ud800/"],
)  # fmt: skip
def test_malformed_addresses(url: str) -> None:
    with pytest.raises(ImageError):
        fetch(url, FetchPolicy(hosts=("*",)))


def test_messages_hold_no_secrets(server: Server) -> None:
    url = server.url.replace("http://", "http://me:pa55@") + "/status/404?X-Signature=abc#frag"
    with pytest.raises(ImageFetchError) as caught:
        fetch(url, FetchPolicy(hosts=("127.0.0.1",)))
    assert "pa55" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert "secret" not in repr(FetchPolicy(headers=secret))
    assert {printable(uri) for uri in ("data:image/png;base64,AAAA", " data:,secret", "da\tta:,secret")} == {
        "data: URI"
    }
    assert "secret" not in printable("http://[secret/")


def test_tls_asks_for_the_name_although_it_connects_to_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []

    def send(self: httpx.Client, request: httpx.Request, **kwargs: object) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, content=PICTURE, request=request)

    monkeypatch.setattr(httpx.Client, "send", send)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda h, p, *a, **k: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", p))],
    )
    assert fetch("https://pictures.example/cat.png", FetchPolicy(hosts=("*",))) == PICTURE
    assert sent[0].url.host == "93.184.216.34"
    assert sent[0].headers["host"] == "pictures.example"
    assert sent[0].extensions["sni_hostname"] == "pictures.example"
