"""Addresses that strangers write into tasks, so that a worker asks somebody inside for them (SSRF)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from worker.errors import ImageError
from worker.images import FetchPolicy, addresses, fetch

from .attack import INSIDE, PUBLIC, Answer, Attack, Scene

fetching = sys.modules[fetch.__module__]
"""The module: the package has a function of the same name."""
ANYBODY = FetchPolicy(hosts=("*",), timeout=5.0)
"""The loosest setting there is: any public host."""

HOSTS = {
    "loopback": "127.0.0.1",
    "another loopback": "127.8.9.1",
    "loopback by name": "localhost",
    "loopback by name in capitals, with a dot": "LOCALHOST.",
    "loopback as one decimal number": "2130706433",
    "loopback as one hexadecimal number": "0x7f000001",
    "loopback as one octal number": "017700000001",
    "loopback in hexadecimal parts": "0x7f.0x0.0x0.0x1",
    "loopback in two parts": "127.1",
    "loopback with other dots": "127。0。0。1",
    "unspecified": "0.0.0.0",  # noqa: S104
    "unspecified, short": "0",
    "private 10": "10.0.0.1",
    "private 172.16": "172.31.255.254",
    "private 192.168": "192.168.1.1",
    "shared": "100.64.0.1",
    "metadata": "169.254.169.254",
    "metadata as a number": "2852039166",
    "metadata of Alibaba": "100.100.100.200",
    "metadata of Azure": "168.63.129.16",
    "metadata of AWS over IPv6": "[fd00:ec2::254]",
    "protocol assignments": "192.0.0.192",
    "benchmarks": "198.18.0.1",
    "relays of 6to4": "192.88.99.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "multicast": "224.0.0.1",
    "IPv6 loopback": "[::1]",
    "IPv6 loopback in full": "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "IPv6 unspecified": "[::]",
    "IPv6 link-local": "[fe80::1]",
    "IPv6 site-local": "[fec0::1]",
    "IPv6 unique local": "[fc00::1]",
    "IPv6 multicast": "[ff02::1]",
    "IPv6 for documents": "[3fff::1]",
    "IPv4-mapped": "[::ffff:127.0.0.1]",
    "IPv4-mapped metadata": "[::ffff:a9fe:a9fe]",
    "IPv4-compatible": "[::127.0.0.1]",
    "IPv4-translated": "[::ffff:0:127.0.0.1]",
    "6to4": "[2002:7f00:1::]",
    "NAT64": "[64:ff9b::7f00:1]",
    "NAT64 of a site": "[64:ff9b:1::7f00:1]",
    "Teredo": "[2001:0:5ef5:79fd:0:0:80ff:fffe]",
    "ISATAP": "[2606:2800:220:1:0:5efe:127.0.0.1]",
    "ISATAP of a unique address": "[2606:2800:220:1:200:5efe:7f00:1]",
    "behind a user": "93.184.216.34@127.0.0.1",
    "behind a user and password": "93.184.216.34:80@127.0.0.1",
    "behind an escaped at sign": "a%40b@127.0.0.1",
}
TRICKS = {
    "a fragment": "http://127.0.0.1:{port}#@93.184.216.34/",
    "a question": "http://127.0.0.1:{port}?@93.184.216.34/",
    "no scheme": "//127.0.0.1:{port}/",
    "capitals": "HTTP://127.0.0.1:{port}/",
}
UNREADABLE = (
    "http://0177.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127.0.0.1:{port}\\@93.184.216.34/",
    "  http://127.0.0.1:{port}/  ",
    "ht\ttp://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\r\nX-Header: 1/",
)
"""What one parser may take for one address and another for another is no address at all."""


def ask(scene: Scene, url: str, policy: FetchPolicy = ANYBODY) -> bytes | None:
    """What an address gives, None where it gives an error of ours."""
    try:
        return fetch(url, policy)
    except ImageError:
        return None


def _asked(url: str) -> Callable[[Scene], bool]:
    def run(scene: Scene) -> bool:
        # With Label Studio known, addresses without a host belong to it.
        policy = FetchPolicy(hosts=("*",), timeout=5.0, studio_url="http://93.184.216.34")
        ask(scene, url.format(port=scene.port), policy)
        return scene.reached

    return run


def _everything_is_public(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(addresses, "is_public", lambda address: True)


def _rebinding(scene: Scene) -> bool:
    scene.names["rebinding.test"] = [[PUBLIC[0]], ["127.0.0.1"]]
    ask(scene, f"http://rebinding.test:{scene.port}/")
    return scene.reached


def _connect_by_name(patch: pytest.MonkeyPatch) -> None:
    checked = addresses.checked_addresses

    def by_name(url: httpx.URL, **rules: Any) -> list[str]:
        checked(url, **rules)
        return [url.host]

    patch.setattr(fetching, "checked_addresses", by_name)


def _one_of_two(scene: Scene) -> bool:
    scene.names["both.test"] = [[PUBLIC[0], "10.0.0.1"]]
    ask(scene, f"http://both.test:{scene.port}/")
    return scene.reached


def _redirected(scene: Scene) -> bool:
    scene.names |= {"ours.test": [["10.0.0.5"]], "theirs.test": [["10.0.0.6"]]}
    scene.victim.answers["/a"] = Answer(302, {"Location": f"http://theirs.test:{scene.port}/b"})
    ask(scene, f"http://ours.test:{scene.port}/a", FetchPolicy(hosts=("ours.test",), timeout=5.0))
    return any(path == "/b" for path, _ in scene.victim.seen)


def _client(patch: pytest.MonkeyPatch, **instead: Any) -> None:
    class Client(httpx.Client):
        def __init__(self, **options: Any) -> None:
            super().__init__(**(options | instead))

    patch.setattr(fetching.httpx, "Client", Client)


def _through_a_proxy(scene: Scene) -> bool:
    scene.names["ours.test"] = [[PUBLIC[0]]]
    before = os.environ.get("HTTP_PROXY")
    os.environ["HTTP_PROXY"] = f"http://127.0.0.1:{scene.port}"
    try:
        ask(scene, "http://ours.test/")
    finally:
        os.environ.pop("HTTP_PROXY") if before is None else os.environ.update(HTTP_PROXY=before)
    return scene.reached


def _token_elsewhere(scene: Scene) -> bool:
    scene.names |= {"studio.test": [["10.0.0.5"]], "storage.test": [["10.0.0.6"]]}
    scene.victim.answers["/data/a"] = Answer(302, {"Location": f"http://storage.test:{scene.port}/b"})
    policy = FetchPolicy(
        studio_url=f"http://studio.test:{scene.port}",
        headers=lambda url: {"Authorization": "Token s3cret"},
        hosts=("studio.test", "storage.test"),
        timeout=5.0,
    )
    assert ask(scene, "/data/a", policy) == INSIDE
    return "Authorization" in next(headers for path, headers in scene.victim.seen if path == "/b")


def _token_to(address: str) -> Callable[[Scene], bool]:
    """Whether the token goes to another door of Label Studio's own host, which a task names."""

    def run(scene: Scene) -> bool:
        scene.names["studio.test"] = [["10.0.0.5"]]
        policy = FetchPolicy(
            studio_url="https://studio.test:8443",
            headers=lambda url: {"Authorization": "Token s3cret"},
            hosts=("studio.test",),
            timeout=5.0,
        )
        assert ask(scene, address, policy) == INSIDE
        return "Authorization" in scene.victim.seen[0][1]

    return run


def _hosts_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fetching, "origin", lambda url: ("", url.host, ""))


def _round_and_round(scene: Scene) -> bool:
    """Whether an address may lead from one to the next for as long as somebody likes."""
    scene.victim.answers |= {f"/{n}": Answer(302, {"Location": f"/{n + 1}"}) for n in range(40)}
    return ask(scene, f"http://127.0.0.1:{scene.port}/0", FetchPolicy(hosts=("127.0.0.1",), timeout=60.0)) == INSIDE


def _one_origin(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fetching, "origin", lambda url: ("http", "", 0))


def _not_listed(scene: Scene) -> bool:
    scene.names["unlisted.test"] = [["10.0.0.7"]]
    ask(scene, f"http://unlisted.test:{scene.port}/", FetchPolicy(hosts=("listed.test",), timeout=5.0))
    return scene.reached


def _all_are_trusted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fetching, "checked_addresses", lambda url, **rules: addresses.resolve(url.host, url.port or 80))


def _look_alike(host: str) -> Callable[[Scene], bool]:
    def run(scene: Scene) -> bool:
        scene.names |= {name: [["10.0.0.8"]] for name in ("evil.test", "listed.test.evil.test", "l\u0456sted.test")}
        ask(scene, f"http://{host}:{scene.port}/", FetchPolicy(hosts=("listed.test",), timeout=5.0))
        return scene.reached

    return run


ATTACKS = [
    *(
        Attack(f"address: {name}", _asked(f"http://{host}:{{port}}/"), _everything_is_public)
        for name, host in HOSTS.items()
    ),
    *(Attack(f"address with {name}", _asked(url), _everything_is_public) for name, url in TRICKS.items()),
    Attack("name that changes its address", _rebinding, _connect_by_name),
    Attack(
        "name with a public and a private address",
        _one_of_two,
        lambda patch: patch.setattr(addresses, "all", any, raising=False),
    ),
    Attack("redirect to somebody else", _redirected, lambda patch: _client(patch, follow_redirects=True)),
    Attack(
        "proxy from the environment",
        _through_a_proxy,
        lambda patch: _client(patch, trust_env=True, transport=None),
    ),
    Attack("Label Studio's token for somebody else", _token_elsewhere, _one_origin),
    Attack("Label Studio's token for another port", _token_to("http://studio.test:9000/a"), _hosts_alone),
    Attack("Label Studio's token without TLS", _token_to("http://studio.test:8443/a"), _hosts_alone),
    Attack(
        "redirects without end",
        _round_and_round,
        lambda patch: patch.setattr(fetching, "range", lambda most: range(1000), raising=False),
    ),
    Attack("host that is not listed", _not_listed, _all_are_trusted),
    Attack("listed host as a user", _look_alike("listed.test@evil.test"), _all_are_trusted),
    Attack("listed host as a beginning", _look_alike("listed.test.evil.test"), _all_are_trusted),
    Attack("listed host in look-alike letters", _look_alike("l\u0456sted.test"), _all_are_trusted),
]
