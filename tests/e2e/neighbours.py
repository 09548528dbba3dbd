"""Servers beside Label Studio in installations: a reverse proxy that serves it under a path, and an S3 bucket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import httpx

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length"}
XML = ("Content-Type", "application/xml")


class Handler(BaseHTTPRequestHandler):
    """Answers every method in `answer`, with keep-alive."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        raise NotImplementedError

    def reply(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(handler: type[Handler], port: int = 0) -> Iterator[str]:
    """The address of a server on the loopback interface while the block runs."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def reverse_proxy(prefix: str, target: str, port: int) -> Iterator[str]:
    """As nginx's `location /prefix/ { proxy_pass target/; }`: takes the prefix off; anything else is a 404."""

    class Proxy(Handler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.path.startswith(prefix + "/"):
                self.reply(404, b"only " + prefix.encode())
                return
            headers = [(name, value) for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP]
            try:
                answer = client.request(self.command, self.path.removeprefix(prefix), content=body, headers=headers)
            except httpx.TransportError as error:  # it is still starting
                self.reply(502, str(error).encode())
                return
            kept = [(name, value) for name, value in answer.headers.multi_items() if name not in HOP_BY_HOP]
            self.reply(answer.status_code, answer.content, *kept)

    with httpx.Client(base_url=target, timeout=120, trust_env=False) as client, serving(Proxy, port) as url:
        yield url + prefix


def bucket(name: str, folder: Path) -> type[Handler]:
    """As much of S3 as Label Studio needs to list and sign a bucket's objects: the files of `folder`.

    An object is handed out to requests that are signed, in a header or by a presigned address.
    """
    when = "2026-01-01T00:00:00.000Z"

    class Bucket(Handler):
        def answer(self) -> None:
            parts = urlsplit(self.path)
            _, _, rest = parts.path.partition(f"/{name}")
            key = rest.strip("/")
            if "X-Amz-Signature=" not in parts.query and "Signature=" not in self.headers.get("Authorization", ""):
                self.reply(403, b"<Error><Code>AccessDenied</Code></Error>", XML)
            elif not key:
                wanted = parse_qs(parts.query).get("prefix", [""])[0]
                self.reply(200, listing(wanted), XML)
            elif (folder / key).is_file():
                self.reply(200, (folder / key).read_bytes(), ("Content-Type", "image/jpeg"))
            else:
                self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>", XML)

    def listing(prefix: str) -> bytes:
        files = sorted(file for file in folder.iterdir() if file.name.startswith(prefix))
        contents = "".join(
            f"<Contents><Key>{escape(file.name)}</Key><LastModified>{when}</LastModified><ETag>&quot;0&quot;</ETag>"
            f"<Size>{file.stat().st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for file in files
        )
        return (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{name}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(files)}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
        ).encode()

    return Bucket
