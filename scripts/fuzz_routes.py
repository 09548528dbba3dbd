"""Fuzzing of a running backend: valid requests with anything put into them, any JSON, any bytes, broken HTTP.

    python scripts/fuzz_routes.py --seconds 600

Starts a backend, a Redis and a worker of its own. Ends with an error at the first answer that is none of those
that the routes may give, an answer that does not come, a traceback in the log, a process that ends, or memory that
only grows.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import socket
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from live import CONFIG, Live, live

LOGIN = "fuzz:pa55word"
ALLOWED = {200, 201, 400, 401, 404, 405, 413, 414, 415, 431, 503}
"""Everything that a request may be answered with; 500 is a fault of ours."""
PATHS = (
    "/",
    "/health",
    "/ready",
    "/setup",
    "/predict",
    "/webhook",
    "/versions",
    "/metrics",
    "/train",
    "/..%2f",
    "/é",
)
KEYS = (
    "id",
    "data",
    "image",
    "tasks",
    "project",
    "label_config",
    "params",
    "context",
    "result",
    "action",
    "schema",
)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
addresses = st.sampled_from(
    [
        "http://127.0.0.1:1/a.jpg",
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "//[",
        "\x00data:,x",
        "a" * 20_000,
    ]
) | st.text(max_size=30)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A request that Label Studio could send, with some of it replaced by anything."""
    task = {"id": draw(st.integers(1, 50)), "data": {"image": draw(addresses)}, "predictions": []}
    area = {"x": 10, "y": 10, "width": 20, "height": 30, "rectanglelabels": ["Cat"]}
    drawn = [{"id": "a", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": area}]
    event = st.sampled_from(["TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED", "ANNOTATION_CREATED"])
    body = {
        "tasks": [task] * draw(st.integers(0, 8)),
        "project": draw(st.sampled_from(["5.1", 5, {"id": 5}])),
        "label_config": CONFIG,
        "schema": CONFIG,
        "action": draw(event),
        "params": {"context": {"result": drawn}} if draw(st.booleans()) else {},
    }
    for _ in range(draw(st.integers(0, 3))):
        place: Any = body
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else 0
            if draw(st.booleans()) or not isinstance(place[key], dict | list):
                place[key] = draw(anything)
                break
            place = place[key]
    return json.loads(json.dumps(body))  # the same task several times is not the same object several times


headers = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": st.sampled_from(["application/json", "text/plain", "application/json; charset=utf-16", ""]),
        "X-Boxlift-Secret": st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=9),
        "Content-Encoding": st.sampled_from(["gzip", "identity", "x"]),
        "X-Forwarded-For": st.sampled_from(["127.0.0.1", "::1", "x"]),
        "Expect": st.sampled_from(["100-continue", "x"]),
    },
)


class Fuzzer:
    """Asks, and judges what comes back."""

    def __init__(self, target: Live) -> None:
        self.target = target
        self.client = httpx.Client(base_url=target.url, timeout=30, trust_env=False, auth=tuple(LOGIN.split(":")))
        self.counts: Counter[str] = Counter()

    def ask(self, method: str, path: str, content: bytes, more: dict[str, str]) -> httpx.Response | None:
        """One request; None where the client itself cannot write it."""
        if (
            not content
        ):  # clients must not (RFC 9110, 10.1.1), and waitress would wait for a body until its time-out
            more = {name: value for name, value in more.items() if name != "Expect"}
        try:
            request = self.client.build_request(method, path, content=content, headers=more)
        except (httpx.InvalidURL, UnicodeError):
            return None
        try:
            answer = self.client.send(request)
        except httpx.HTTPError as error:
            raise AssertionError(f"{method} {path} {content[:2000]!r} {more}: {error!r}") from None
        self.counts[f"{method} {path if path in PATHS else 'elsewhere'} {answer.status_code}"] += 1
        if answer.status_code not in ALLOWED:
            raise AssertionError(
                f"{method} {path} {content[:2000]!r} {more}: {answer.status_code} {answer.text[:500]}"
            )
        if method != "HEAD" and answer.headers.get("content-type", "").startswith("application/json"):
            answer.json()
        if "Traceback" in answer.text or LOGIN.partition(":")[2] in answer.text:
            raise AssertionError(f"{method} {path} {content[:2000]!r} tells too much: {answer.text[:500]}")
        return answer

    def structured(self, examples: int) -> None:
        """Requests that look right, and any JSON."""

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(PATHS), bodies() | anything, headers)
        def run(path: str, body: Any, more: dict[str, str]) -> None:
            more = {"Content-Type": "application/json"} | more
            answer = self.ask("POST", path, json.dumps(body).encode("utf-8", "surrogatepass"), more)
            tasks = body.get("tasks") if isinstance(body, dict) else None
            if answer is not None and path == "/predict" and answer.status_code == 200:
                results = answer.json()["results"]
                assert isinstance(tasks, list)
                assert len(results) == len(tasks), (len(results), body)

        run()

    def raw(self, examples: int) -> None:
        """Any method, path, header and bytes."""

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "X"]),
            st.sampled_from(PATHS) | st.text(max_size=30).map(lambda text: "/" + text),
            st.binary(max_size=300),
            headers,
        )
        def run(method: str, path: str, content: bytes, more: dict[str, str]) -> None:
            self.ask(method, path, content, more)

        run()

    def broken(self, number: int, random_: random.Random) -> None:
        """What is not quite HTTP: the answer does not matter, only that the next one gets its own."""
        host, port = urlsplit(self.target.url).hostname, urlsplit(self.target.url).port
        login = base64.b64encode(LOGIN.encode())
        lines = [
            b"POST /predict HTTP/1.1",
            b"GET /health HTTP/1.0",
            b"GET / HTTP/9.9",
            b"Host: a",
            b"Content-Length: 10",
            b"Content-Length: -1",
            b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: chunked, identity",
            b"Expect: 100-continue",
            b"Authorization: Basic " + login,
            b"Content-Type: application/json",
            b"",
            b'5\r\n{"a":',
            b"ffffffff",
            b"-5",
            b"0\r\n",
            b"X: " + b"a" * 70_000,
            b"\x00\xff",
            b" folded",
        ]
        for _ in range(number):
            data = b"\r\n".join(random_.choices(lines, k=random_.randint(1, 9))) + b"\r\n"
            if random_.random() < 0.3:
                data = bytes(random_.randrange(256) for _ in range(random_.randrange(200)))
            with socket.create_connection((host, port), timeout=10) as connection:
                connection.settimeout(0.05)
                try:
                    connection.sendall(data)
                    connection.recv(65536)
                except OSError:
                    pass
            self.counts["broken HTTP"] += 1

    def check(self) -> None:
        """The backend is well."""
        if self.target.backend.poll() is not None:
            raise AssertionError(f"the backend ended:\n{self.target.log.read_text()[-3000:]}")
        if self.client.get("/health").status_code != 200:
            raise AssertionError("/health is not well")
        log = self.target.log.read_text(errors="replace")
        if "Traceback" in log or "unexpected error" in log:
            raise AssertionError(f"a fault in the log:\n{log[-5000:]}")


def main() -> None:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    given_ = parser.parse_args()
    quick = {"BOXLIFT_ANSWER_SECONDS": "0.2", "BOXLIFT_PREANNOTATE": "yes", "BOXLIFT_MAX_REQUEST_BYTES": "200000"}
    with live(seconds=0.01, BOXLIFT_BASIC_AUTH=LOGIN, **quick) as target:
        fuzzer, process = Fuzzer(target), psutil.Process(target.backend.pid)
        deadline, random_, sizes = time.monotonic() + given_.seconds, random.Random(0), []  # noqa: S311
        while time.monotonic() < deadline:
            fuzzer.structured(300)
            fuzzer.raw(200)
            fuzzer.broken(50, random_)
            fuzzer.check()
            sizes.append(process.memory_info().rss / 1e6)
            print(f"{sum(fuzzer.counts.values()):,} requests, {sizes[-1]:.0f} MB", flush=True)
    print(*(f"{count:8,} {what}" for what, count in sorted(fuzzer.counts.items())), sep="\n")
    half = sizes[len(sizes) // 2]
    if len(sizes) > 10 and sizes[-1] > half * 1.2 + 20:
        raise SystemExit(f"memory grew from {half:.0f} MB to {sizes[-1]:.0f} MB in the second half")


if __name__ == "__main__":
    main()
