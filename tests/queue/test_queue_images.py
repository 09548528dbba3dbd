"""Images that come late, or not at all, from a server that misbehaves: only their own task is concerned."""

from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fleet import PROJECT, VERSION, Fleet, photo, until

from worker.contract import BULK, ImageRef, Request


class ImageServer:
    """Serves a picture under any name, but /slow after `delay` seconds, /gone never, /down/* not while `down`."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.down = True
        self.delay = 3.0
        outer, picture = self, base64.b64decode(photo().partition(",")[2])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                if self.path == "/slow":
                    time.sleep(outer.delay)
                status = (
                    404 if self.path == "/gone" else 503 if self.path.startswith("/down") and outer.down else 200
                )
                self.send_response(status)
                self.send_header("Content-Length", str(len(picture)))
                self.end_headers()
                self.wfile.write(picture)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://{self.host}/{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def images() -> Iterator[ImageServer]:
    server = ImageServer()
    yield server
    server.close()


def test_a_slow_image_holds_up_nobody(fleet: Fleet, images: ImageServer) -> None:
    images.delay = 6.0
    fleet.start(1, hosts=[images.host])
    (slow,) = fleet.enqueue([1], images.url("slow"))
    others = fleet.enqueue(range(2, 80))
    until(lambda: fleet.delivered_to() >= {request.task for request in others}, "the others")
    assert 1 not in fleet.delivered_to(), "the slow one came first: the test tests nothing"
    fleet.wait_for_all([slow, *others])


def test_an_image_that_is_gone_is_an_error_of_that_image(fleet: Fleet, images: ImageServer) -> None:
    fleet.start(1, hosts=[images.host])
    refs = [ImageRef(images.url(name), "image", page) for page, name in enumerate(["a", "gone", "b"])]
    request = Request(PROJECT, 1, VERSION, fleet.plan, tuple(refs))
    fleet.jobs.submit([request], interactive=False)
    pages = fleet.wait_for_all([request])[1].images
    assert [page.image.item_index for page in pages] == [0, 1, 2]
    assert [bool(page.detections) for page in pages] == [True, False, True]
    assert "404" in (pages[1].error or "")
    assert images.asked["/gone"] == 1, "what is gone stays gone"
    until(fleet.failures, "an entry in the list of failures")
    assert (fleet.failures()[0]["task"], "404" in fleet.failures()[0]["reason"]) == (1, True)


def test_an_image_that_is_refused_is_an_error_of_that_image(fleet: Fleet, images: ImageServer) -> None:
    fleet.start(1)
    (request,) = fleet.enqueue([1], images.url("a"))
    assert fleet.wait_for_all([request])[1].images[0].error
    assert not images.asked, "a private address that nobody allowed was asked"


def test_a_server_that_is_down_for_a_while(fleet: Fleet, images: ImageServer) -> None:
    fleet.start(1, hosts=[images.host])
    (request,) = fleet.enqueue([1], images.url("down/a"))
    until(lambda: fleet.job(request).get("status") == "scheduled", "the pause before the next try")
    assert "503" in fleet.job(request)["reason"]
    others = fleet.enqueue(range(2, 10))
    until(lambda: fleet.delivered_to() >= {r.task for r in others}, "the others, meanwhile")
    images.down = False
    assert fleet.wait_for_all([request, *others])[1].images[0].detections
    assert fleet.job(request)["status"] == "finished"
    assert "reason" not in fleet.job(request)


def test_a_server_that_stays_down(fleet: Fleet, images: ImageServer) -> None:
    fleet.jobs._retries = 0
    fleet.start(1, hosts=[images.host])
    (request,) = fleet.enqueue([1], images.url("down/a"))
    assert "503" in (fleet.wait_for_all([request])[1].images[0].error or "")
    assert images.asked["/down/a"] == 3, "a few quick tries"
    assert fleet.client.zcard(f"rq:failed:{BULK}") == 0
    until(fleet.failures, "an entry in the list of failures")
