"""Late results reach a real Label Studio: all of them, each once, whatever happens in between."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from fleet import LONG, Fleet, photo, until

from backend import outbox
from backend.delivery import Delivery
from backend.demo.studio_api import StudioApi
from backend.demo.studio_server import StudioServer, find_studio
from backend.outbox import Outbox
from backend.studio import Studio
from worker.contract import (
    OUTBOXES_KEY,
    Detection,
    ImageRef,
    ImageResult,
    Model,
    Plan,
    Request,
    Result,
    model_key,
    outbox_key,
    sending_key,
)
from worker.errors import StudioError

pytestmark = [
    pytest.mark.studio,
    pytest.mark.timeout(900),
    # The SDK's own use of pydantic.
    pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated"),
]

CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="label" toName="image"><Label value="cat"/><Label value="dog"/></RectangleLabels></View>"""
MODEL = Model("boxlift-stub-1", "stub", ("cat", "dog"))


def picture(index: int) -> str:
    """An address of its own for each task."""
    return photo().replace(";", f";number={index};", 1)


class Site:
    """A Label Studio that can be stopped and started again, and its API as a person sees it."""

    def __init__(self, server: StudioServer) -> None:
        self.server = server
        self._studios: list[Studio] = []

    @property
    def api(self) -> StudioApi:
        return StudioApi(self.server.url, self.server.login.token)

    def studio(self, kind: type[Studio] = Studio) -> Studio:
        self._studios.append(kind(self.server.url, self.server.login.token, timeout=60))
        return self._studios[-1]

    def close(self) -> None:
        for studio in self._studios:
            studio.close()

    def answers(self) -> bool:
        """Whether it is up and takes the token: just started, it may refuse for a moment."""
        try:
            self.server.wait()
        except StudioError:
            return False
        return True

    def project(self, tasks: int) -> tuple[int, list[int]]:
        """A new project and its tasks, each with a picture of its own."""
        with self.api as api:
            number = api.create_project("delivery", CONFIG)
            urls = [picture(index) for index in range(tasks)]
            return number, api.import_tasks(number, [{"image": url} for url in urls])

    def stored(self, project: int) -> Counter[int]:
        """Task → number of predictions."""
        with self.api as api:
            return Counter(item["task"] for item in api.predictions(project))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        find_studio()
    except StudioError as error:
        pytest.skip(str(error))
    with StudioServer(tmp_path_factory.mktemp("studio")) as server:
        server.wait()
        site = Site(server)
        yield site
        site.close()


@pytest.fixture
def delivery(fleet: Fleet, site: Site) -> Delivery:
    fleet.client.set(model_key(MODEL.version), json.dumps(MODEL.to_dict()))
    return Delivery(fleet.client, site.studio(), interval=0.2)


def request_of(fleet: Fleet, project: int, task: int, index: int) -> Request:
    plan = fleet.jobs.put_plan(Plan(CONFIG, classes=(0, 1)))
    return Request(project, task, MODEL.version, plan, (ImageRef(picture(index), "image"),))


def put(fleet: Fleet, project: int, tasks: list[int], *, label: int = 0, config: str = CONFIG) -> None:
    """Results in the outbox, as a worker leaves them there."""
    plan = fleet.jobs.put_plan(Plan(config, classes=(0, 1)))
    for index, task in enumerate(tasks):
        ref = ImageRef(picture(index), "image")
        found = (Detection(MODEL.classes[label], label, 0.75, (1.0, 1.0, 4.0, 3.0)),)
        result = Result(project, task, MODEL.version, plan, (ImageResult(ref, 6, 4, found),))
        fleet.client.hset(outbox_key(project), str(task), json.dumps(result.to_dict()))
    fleet.client.sadd(OUTBOXES_KEY, project)


def left(fleet: Fleet, project: int) -> int:
    pipe = fleet.client.pipeline(transaction=True)
    pipe.hlen(outbox_key(project))
    pipe.hlen(sending_key(project))
    return sum(pipe.execute())


def test_each_once_and_again_changes_nothing(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    project, tasks = site.project(30)
    put(fleet, project, tasks)
    assert delivery.deliver(project) == 30
    assert site.stored(project) == Counter(tasks)
    with site.api as api:
        (stored,) = [item for item in api.predictions(project) if item["task"] == tasks[0]]
        assert stored["model_version"] == MODEL.version
        assert stored["score"] == 0.75
        assert stored["result"][0]["value"]["rectanglelabels"] == ["cat"]
        assert api.call("GET", f"/api/projects/{project}/")["model_version"] == MODEL.version
    put(fleet, project, tasks)
    assert delivery.deliver(project) == 0
    assert site.stored(project) == Counter(tasks)
    assert left(fleet, project) == 0
    assert str(project).encode() not in fleet.client.smembers(OUTBOXES_KEY)


def test_what_can_never_be_stored_is_reported_and_holds_up_nobody(
    fleet: Fleet, site: Site, delivery: Delivery
) -> None:
    project, tasks = site.project(12)
    put(fleet, project, tasks)
    with site.api as api:
        api.call("DELETE", f"/api/tasks/{tasks[3]}/")
    other = Result(project, tasks[5], MODEL.version, "0" * 12, ())
    fleet.client.hset(outbox_key(project), str(tasks[4]), "not json")
    fleet.client.hset(outbox_key(project), str(tasks[5]), json.dumps(other.to_dict()))
    plan = fleet.jobs.put_plan(Plan(CONFIG))
    moved = Result(
        project, tasks[6], MODEL.version, plan, (ImageResult(ImageRef("/data/upload/9/x.jpg", "image"), 6, 4),)
    )
    fleet.client.hset(outbox_key(project), str(tasks[6]), json.dumps(moved.to_dict()))
    assert delivery.deliver(project) == 8
    assert site.stored(project) == Counter(task for i, task in enumerate(tasks) if i not in (3, 4, 5, 6))
    reasons = {entry["task"]: entry["reason"] for entry in fleet.failures()}
    assert set(reasons) == {tasks[i] for i in (3, 4, 5, 6)}
    assert "deleted" in reasons[tasks[3]]
    assert "another image" in reasons[tasks[6]]
    assert left(fleet, project) == 0


def test_labels_that_the_project_no_longer_has(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    """Label Studio refuses, or drops without a word, what does not fit its config: either way it is reported."""
    project, tasks = site.project(6)
    put(fleet, project, tasks[:3], label=0)
    old = CONFIG.replace('name="label"', 'name="former"')
    result_plan = fleet.jobs.put_plan(Plan(old, classes=(0, 1)))
    for index, task in enumerate(tasks[3:], start=3):
        ref = ImageRef(picture(index), "image")
        found = (Detection("dog", 1, 0.5, (1.0, 1.0, 4.0, 3.0)),)
        result = Result(project, task, MODEL.version, result_plan, (ImageResult(ref, 6, 4, found),))
        fleet.client.hset(outbox_key(project), str(task), json.dumps(result.to_dict()))
    delivery.deliver(project)
    stored = site.stored(project)
    assert set(tasks[:3]) <= set(stored)
    reported = {entry["task"] for entry in fleet.failures()}
    assert set(stored) | reported == set(tasks), "every task is stored or reported"
    assert set(stored) & reported == set()
    assert left(fleet, project) == 0


def test_a_project_that_is_gone(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    project, tasks = site.project(3)
    put(fleet, project, tasks)
    with site.api as api:
        api.call("DELETE", f"/api/projects/{project}/")
    assert delivery.deliver(project) == 0
    assert {entry["task"] for entry in fleet.failures()} == set(tasks)
    assert left(fleet, project) == 0


def test_two_senders_and_one_that_died(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    project, tasks = site.project(60)
    put(fleet, project, tasks)
    delivery._outbox.take(project, 20)  # a sender that was killed here
    assert fleet.client.hlen(sending_key(project)) == 20
    second = Delivery(fleet.client, site.studio())
    threads = [threading.Thread(target=one.deliver, args=(project,)) for one in (delivery, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.stored(project) == Counter(tasks)
    assert left(fleet, project) == 0


def test_killed_after_the_import_and_before_noting_it(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    project, tasks = site.project(10)
    put(fleet, project, tasks)

    class Dies(Studio):
        def import_predictions(self, *args: object, **kwargs: object) -> int:
            super().import_predictions(*args, **kwargs)  # type: ignore[arg-type]
            raise SystemExit("killed")

    dying = Delivery(fleet.client, site.studio(Dies))
    with pytest.raises(SystemExit):
        dying.deliver(project)
    assert left(fleet, project) == 10
    assert delivery._outbox.importing(project), "it may go on"
    assert delivery.deliver(project) == 0
    assert site.stored(project) == Counter(tasks)
    assert left(fleet, project) == 0


class SlowServer:
    """Passes everything on to a Label Studio, imports of predictions `delay` seconds late, whoever still
    listens."""

    def __init__(self, url: str) -> None:
        self.delay = 0.0
        self.imports = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.endswith("/import/predictions"):
                    outer.imports += 1
                    time.sleep(outer.delay)
                kept = ("authorization", "content-type")
                headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
                answer = httpx.request(self.command, url + self.path, content=body, headers=headers, timeout=100)
                try:
                    self.send_response(answer.status_code)
                    self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                    self.send_header("Content-Length", str(len(answer.content)))
                    self.end_headers()
                    self.wfile.write(answer.content)
                except OSError:
                    self.close_connection = True

            do_GET = do_POST = do_PATCH = pass_on  # noqa: N815 - the names that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_an_import_that_takes_longer_than_one_waits_for(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    """Given up, Label Studio stores it all the same: nobody sends it a second time meanwhile."""
    project, tasks = site.project(5)
    put(fleet, project, tasks)
    server = SlowServer(site.server.url)
    impatient = Studio(server.url, site.server.login.token, timeout=15.0)
    try:
        slow = Delivery(fleet.client, impatient, unsure=60.0)
        server.delay = 20.0
        with pytest.raises(StudioError, match="in time"):
            slow.deliver(project)
        with pytest.raises(StudioError, match="still be importing"):
            delivery.deliver(project)  # another process
        assert left(fleet, project) == 5
        until(lambda: site.stored(project), "the import")
        assert delivery.deliver(project) == 0
        assert left(fleet, project) == 0, "it is seen to be there"
        assert site.stored(project) == Counter(tasks)
        assert server.imports == 1
    finally:
        impatient.close()
        server.close()


def test_an_import_that_never_came_through_is_sent_again(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    project, tasks = site.project(3)
    put(fleet, project, tasks)

    class Silent(Studio):
        def import_predictions(self, *args: object, **kwargs: object) -> int:
            raise StudioError("did not answer in time")

    with pytest.raises(StudioError):
        Delivery(fleet.client, site.studio(Silent), unsure=1.0).deliver(project)
    until(lambda: not delivery._outbox.importing(project), "the end of the doubt")
    assert delivery.deliver(project) == 3
    assert site.stored(project) == Counter(tasks)


@pytest.mark.parametrize(("status", "may_go_on"), [(500, False), (502, True), (504, True)])
def test_a_proxys_answer_says_nothing_of_the_import(
    fleet: Fleet, site: Site, delivery: Delivery, status: int, may_go_on: bool
) -> None:
    """Label Studio's own 500, say of a database that is locked, is the end of it, and it is sent again at once."""
    project, tasks = site.project(3)
    put(fleet, project, tasks)

    class Failing(Studio):
        def import_predictions(self, *args: object, **kwargs: object) -> int:
            raise StudioError("failed", status)

    with pytest.raises(StudioError, match="failed"):
        Delivery(fleet.client, site.studio(Failing)).deliver(project)
    assert delivery._outbox.importing(project) == may_go_on
    if not may_go_on:
        assert delivery.deliver(project) == 3
        assert site.stored(project) == Counter(tasks)


def test_a_dead_senders_lock_ends_soon_and_a_living_ones_does_not(
    fleet: Fleet, site: Site, delivery: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HELD", 2.0)
    project, tasks = site.project(3)
    put(fleet, project, tasks)
    with Outbox(fleet.client).locked(project) as ours:
        assert ours is not None
        time.sleep(4)  # longer than the lock: it is renewed
        assert ours()
        assert delivery.deliver(project) == 0
        assert left(fleet, project) == 3
    fleet.client.set(f"boxlift:1:delivery:{project}", "a sender that was killed", px=2000)
    assert delivery.deliver(project) == 0
    until(lambda: delivery.deliver(project) == 3, "the end of the dead one's lock")
    assert site.stored(project) == Counter(tasks)


def test_label_studio_down_while_results_come(fleet: Fleet, site: Site, delivery: Delivery) -> None:
    """Down until all results wait and a few tries have failed; with BOXLIFT_LONG_TESTS, for a minute."""
    project, tasks = site.project(40)
    fleet.start(1, version=MODEL.version)
    site.server.stop()
    delivery.start()
    try:
        requests = [request_of(fleet, project, task, index) for index, task in enumerate(tasks)]
        fleet.jobs.submit(requests, interactive=False)
        until(fleet.nothing_left, "empty queues")
        time.sleep(60 if LONG else 5)
        assert left(fleet, project) == 40
        site.server.start()
        until(site.answers, "Label Studio")
        until(lambda: left(fleet, project) == 0, "an empty outbox", seconds=300)
        assert site.stored(project) == Counter(tasks)
        assert not fleet.failures()
    finally:
        delivery.stop()
