"""Images that come late, or not at all, from a server that misbehaves: only their own task is concerned."""

from __future__ import annotations

import base64
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fleet import PROJECT, VERSION, Fleet, photo, until
from stub_worker import BREAKS, JAMS, STALLS

from worker.contract import BULK, ImageRef, Request


class ImageServer:
    """Serves a picture under any name, but /slow after `delay` seconds, /held/* once `release` is set, /gone never,
    /down/* not while `down`."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.down = True
        self.delay = 3.0
        self.release = threading.Event()
        outer, picture = self, base64.b64decode(photo().partition(",")[2])

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked[self.path] += 1
                if self.path == "/slow":
                    time.sleep(outer.delay)
                if self.path.startswith("/held"):
                    outer.release.wait(100)
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
        self.release.set()
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
    assert "suspect" not in fleet.job(request), "it is tried again with others, not alone: a dead host has many"
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


def test_a_token_that_cannot_be_refreshed_costs_no_worker(
    fleet: Fleet, images: ImageServer, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    away.touch()
    (worker,) = fleet.start(1, studio=f"http://{images.host}", away=str(away))
    (request,) = fleet.enqueue([1], "/data/upload/1/a.png")
    others = fleet.enqueue(range(2, 20))
    until(lambda: fleet.delivered_to() >= {r.task for r in others}, "the others, meanwhile")
    until(lambda: "fresh access token" in fleet.job(request).get("reason", ""), "the reason")
    away.unlink()
    assert fleet.wait_for_all([request, *others])[1].images[0].detections
    assert worker.poll() is None


def test_a_fault_of_the_decoder_costs_its_image_only(fleet: Fleet) -> None:
    (worker,) = fleet.start(1)
    requests = fleet.enqueue(range(10)) + fleet.enqueue([10], photo(BREAKS))
    assert "RuntimeError" in (fleet.wait_for_all(requests)[10].images[0].error or "")
    assert worker.poll() is None


def test_waiting_for_a_loader_is_no_hang(fleet: Fleet, images: ImageServer) -> None:
    """Images that come slowly, but none slower than a job may be, and many of them at hand at once."""
    fleet.jobs._timeout = 5
    (worker,) = fleet.start(1, hosts=[images.host], loaders=1)
    fleet.wait_for_all(fleet.enqueue(range(100, 200)))  # batches have grown, and with them what is taken ahead
    images.delay = 2.0
    requests = fleet.enqueue(range(6), images.url("slow"))
    until(lambda: fleet.delivered_to() >= set(range(6)), "the slow ones")
    assert worker.poll() is None, "it was taken for one that hangs"
    assert {fleet.job(request)["tries"] for request in requests} == {"1"}


@pytest.mark.parametrize("colour", [JAMS, STALLS], ids=["with the lock", "without the lock"])
def test_a_decoder_that_hangs_is_noticed_while_others_work(fleet: Fleet, colour: tuple[int, int, int]) -> None:
    fleet.jobs._timeout = 3
    fleet.start(1, supervised=1, seconds=0.1)
    (stuck,) = fleet.enqueue([1000], photo(colour))
    others = fleet.enqueue(range(400))
    until(lambda: fleet.job(stuck).get("reason"), "the end of the first try")
    assert len(fleet.delivered_to()) < len(others), "it was noticed only when there was nothing else to do"
    assert "took longer than its 3 s" in fleet.job(stuck)["reason"]
    until(lambda: fleet.job(stuck).get("status") == "failed", "the failure")
    fleet.wait_for_all(others)


def test_urgent_images_do_not_wait_for_slow_bulk_ones(fleet: Fleet, images: ImageServer) -> None:
    fleet.start(1, hosts=[images.host], loaders=2)
    fleet.wait_for_all(fleet.enqueue(range(100, 150)))
    for number in range(8):
        fleet.enqueue([number], images.url(f"held/{number}"))
    until(lambda: sum(images.asked.values()) == 2, "both loaders busy")
    assert set(fleet.jobs.submit([fleet.request(1000, images.url("a"))], interactive=True, wait=60)) == {1000}
    images.release.set()
    until(lambda: fleet.delivered_to() >= set(range(8)), "the others")


def test_urgent_jobs_do_not_wait_for_the_image_of_a_suspect(fleet: Fleet, images: ImageServer) -> None:
    (suspect,) = fleet.enqueue([1], images.url("held/1"))
    fleet.client.hset(f"rq:job:{suspect.job_id}", mapping={"tries": "1", "suspect": "1"})  # its worker died
    fleet.start(1, hosts=[images.host])
    until(lambda: images.asked["/held/1"], "the fetching of its image")
    assert set(fleet.jobs.submit([fleet.request(1000)], interactive=True, wait=60)) == {1000}
    assert fleet.job(suspect)["status"] == "started"
    images.release.set()
    until(lambda: 1 in fleet.delivered_to(), "the suspect")
