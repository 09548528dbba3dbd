"""Image bytes from where tasks say they are: http(s), Label Studio, data: URIs and allowed folders."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, unquote_to_bytes, urlencode, urlsplit

import httpx

from worker.contract import digest, is_data_uri, strings
from worker.errors import ImageError, ImageFetchError, ImageRefusedError
from worker.images.addresses import checked_addresses, origin
from worker.images.deadline import Deadline, Transport

Headers = Callable[[str], Mapping[str, str]]
"""Address → the headers that open it."""

_RETRY_LATER = {408, 425, 429}
_ENCODINGS = {"identity", "gzip", "x-gzip", "deflate"}
"""None was asked for. These inflate what is read at once, 64 KiB, to 64 MiB at most; others, or several, know no
such bound."""
_LOCAL_FILES = "/data/local-files/"
_TASKS = "/api/tasks"


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Where images may come from, and what fetching one may cost."""

    studio_url: str = ""
    """Label Studio's address: relative addresses belong to it, and it may be on a private network."""
    headers: Headers | None = field(default=None, repr=False, compare=False)
    """Headers for Label Studio. They go to its scheme, host and port, and nowhere else."""
    hosts: tuple[str, ...] = ()
    """Further hosts, as "host" or "host:port", that may be private; "*" for any public host."""
    roots: tuple[Path, ...] = ()
    """Folders that local paths must lie in, symbolic links resolved."""
    max_bytes: int = 64 << 20
    timeout: float = 30.0
    """Seconds for one image, from connecting to its last byte, redirects included. How long a name may be looked up
    is the system's own affair (resolv.conf)."""
    max_redirects: int = 5

    @property
    def trusted(self) -> frozenset[str]:
        """Hosts that may be private: the configured ones, and Label Studio's with its port."""
        named = {host.lower().rstrip(".") for host in self.hosts if host != "*"}
        if self.studio_url:
            _, host, port = origin(httpx.URL(self.studio_url))
            named.add(f"{host}:{port}")
        return frozenset(named)


def fetch(url: str, policy: FetchPolicy) -> bytes:
    """The bytes behind an image's address.

    `http(s)://…`, `data:…`, `file:///…`, a path inside one of `policy.roots`, or a path on Label Studio such as
    `/data/upload/1/cat.jpg` and `/data/local-files/?d=cats/cat.jpg` (read from the roots where it lies there), or
    `/api/tasks?project=1&id=2#…` for a `data:` URI inside a task.

    Raises ImageRefusedError for what the policy does not allow, ImageFetchError for what cannot be had; its
    `retryable` tells whether another try may help.
    """
    try:
        return _by_scheme(url, policy)
    except (ValueError, LookupError, httpx.InvalidURL):  # whichever part of it is missing or cannot be read
        raise _final("an image's address is not valid: check the task's data") from None


def _by_scheme(url: str, policy: FetchPolicy) -> bytes:
    scheme = urlsplit(url).scheme.lower() if not url.startswith("/") else ""
    match scheme:
        case "data" if is_data_uri(url):
            return _inline(url, policy)
        case "data":  # with a line break in its scheme: what did not know it as one may have passed it on
            raise ValueError(scheme)
        case "http" | "https":
            return _download(url, policy)
        case "file":
            return _read(Path(unquote(urlsplit(url).path)), url, policy)
        case "":
            return _relative(url, policy)
        case _:
            raise ImageRefusedError(
                f"{scheme}: addresses cannot be read: let Label Studio's storage hand out https links instead"
            )


def printable(url: str) -> str:
    """An address for messages: without user, password, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is not valid"
    if parts.scheme == "data":
        return "data: URI"
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if len(parts.path) <= 200 else parts.path[:200] + "…"
    shown = parse_qs(parts.query).get("d", [""])[0] if parts.path.startswith(_LOCAL_FILES) else ""
    return (f"{parts.scheme}://{host}" if parts.scheme else "") + path + (f"?d={shown}" if shown else "")


def _relative(url: str, policy: FetchPolicy) -> bytes:
    parts = urlsplit(url)
    if parts.fragment and parts.path == _TASKS:
        return _embedded(parse_qs(parts.query), parts.fragment, policy)
    if parts.path.startswith(_LOCAL_FILES):
        wanted = parse_qs(parts.query).get("d", [""])[0].lstrip("/")
        candidates = [root / wanted for root in policy.roots] if wanted else []
    else:
        candidates = [root / unquote(parts.path) for root in policy.roots]  # an absolute path replaces the root
    for candidate in candidates:
        if _inside(candidate, policy) is not None:
            return _read(candidate, url, policy)
    if policy.studio_url and url.startswith("/"):
        return _download(_on_studio(url, policy), policy)
    raise ImageRefusedError(
        f"{printable(url)} is in none of the folders that images may come from: "
        "set LABEL_STUDIO_URL, or add its folder to BOXLIFT_IMAGE_ROOTS"
    )


def _on_studio(path: str, policy: FetchPolicy) -> str:
    """A path on Label Studio as an address; tasks may hold the prefix that it is served under, or not."""
    studio = httpx.URL(policy.studio_url)
    prefix = studio.path.rstrip("/")
    if prefix and not path.startswith(prefix + "/"):
        path = prefix + path
    return str(studio.join(path))


def _inside(path: Path, policy: FetchPolicy) -> Path | None:
    """The real path of an existing file inside the roots, or None."""
    try:
        real = path.resolve(strict=True)
        if any(real.is_relative_to(root.resolve()) for root in policy.roots):
            return real
    except (OSError, ValueError, RuntimeError):  # missing, not allowed to look, a NUL in the name, a link loop
        pass
    return None


def _read(path: Path, url: str, policy: FetchPolicy) -> bytes:
    real = _inside(path, policy)
    if real is None:
        raise ImageRefusedError(
            f"{printable(url)} is not a file in the folders of BOXLIFT_IMAGE_ROOTS: add its folder if it should be"
        )
    try:
        if not stat.S_ISREG(real.stat().st_mode):
            raise ImageRefusedError(f"{printable(url)} is not an ordinary file")
        with real.open("rb") as file:
            data = file.read(policy.max_bytes + 1)
    except OSError as error:
        raise ImageFetchError(
            f"{printable(url)} cannot be read ({error.strerror}): check its permissions"
        ) from None
    return _within(data, url, policy)


def _inline(url: str, policy: FetchPolicy) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise _final("a data: URI without a comma holds no image: check the task's data")
    if len(body) > policy.max_bytes * 4:
        raise _too_large(url, policy)
    if not head.lower().endswith(";base64"):
        return _within(unquote_to_bytes(body), url, policy)
    try:
        return _within(base64.b64decode(b"".join(unquote_to_bytes(body).split()), validate=True), url, policy)
    except (binascii.Error, ValueError):
        raise _final("a data: URI is not valid base64: check the task's data") from None


def _embedded(task: Mapping[str, list[str]], wanted: str, policy: FetchPolicy) -> bytes:
    """The `data:` URI named `wanted` (see `contract.embedded_address`) in the data of a task on Label Studio."""
    if not policy.studio_url:
        raise ImageRefusedError(
            "the image is inside the task's data, which workers read from Label Studio: set LABEL_STUDIO_URL"
        )
    # Asked of the list: to open the task itself would make Label Studio ask for its prediction once more.
    number = {"filter": "filter:tasks:id", "operator": "equal", "type": "Number", "value": task["id"][0]}
    query = {
        "project": task["project"][0],
        "include": "id,data",
        "query": json.dumps({"filters": {"conjunction": "and", "items": [number]}}),
    }
    # Base64 takes a third more than the image, and a task may hold several images.
    limits = replace(policy, max_bytes=policy.max_bytes * 4)
    answer = _download(_on_studio(f"{_TASKS}?{urlencode(query)}", policy), limits)
    try:
        data = [one["data"] for one in json.loads(answer)["tasks"]]
    except (ValueError, TypeError, KeyError):
        raise _final(f"{_TASKS} does not answer with tasks: check LABEL_STUDIO_URL") from None
    for text in strings(data):
        if is_data_uri(text) and digest(text, 32) == wanted:
            return _inline(text, policy)
    raise _final("the image is no longer in the task's data: ask for its prediction again")


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _download(url: str, policy: FetchPolicy) -> bytes:
    deadline = Deadline(policy.timeout)
    transport = Transport(deadline, _tls())
    try:
        target = httpx.URL(url)
        # Proxies from the environment would connect elsewhere than to the addresses that were checked.
        with httpx.Client(trust_env=False, follow_redirects=False, transport=transport) as client:
            for _ in range(policy.max_redirects + 1):
                answer = _get(client, target, policy, deadline)
                if isinstance(answer, bytes):
                    return answer
                target = answer
    except httpx.InvalidURL:
        raise _final(f"{printable(url)} is not a valid address: check the task's data") from None
    except httpx.TimeoutException:
        raise _too_slow(url, policy) from None
    except httpx.HTTPError as error:
        raise ImageFetchError(
            f"{printable(url)} cannot be fetched ({type(error).__name__}): check the server"
        ) from None
    raise _final(f"{printable(url)} redirects more than {policy.max_redirects} times")


def _get(client: httpx.Client, url: httpx.URL, policy: FetchPolicy, deadline: Deadline) -> bytes | httpx.URL:
    """One hop: the image, or the address that it redirects to."""
    if url.scheme not in ("http", "https") or not url.host:
        raise ImageRefusedError(f"{printable(str(url))} is no http(s) address")
    addresses = checked_addresses(url, trusted=policy.trusted, any_public="*" in policy.hosts)
    headers = {"Host": url.netloc.decode("ascii"), "Accept": "*/*", "Accept-Encoding": "identity"}
    if policy.headers is not None and policy.studio_url and origin(url) == origin(httpx.URL(policy.studio_url)):
        headers |= policy.headers(str(url))
    for index, address in enumerate(addresses):
        left = deadline.left
        if left <= 0:
            break
        request = client.build_request(
            "GET",
            url.copy_with(host=address),
            headers=headers,
            timeout=left,
            extensions={"sni_hostname": url.host},
        )
        try:
            response = client.send(request, stream=True)
        except httpx.ConnectError:
            if index + 1 == len(addresses):
                raise
            continue
        try:
            if response.is_redirect:
                return url.join(response.headers["location"])
            _check_status(response, url)
            return _body(response, url, policy)
        finally:
            response.close()
    raise _too_slow(str(url), policy)


def _check_status(response: httpx.Response, url: httpx.URL) -> None:
    status = response.status_code
    if status == 200:
        return
    message = f"{printable(str(url))} answers {status} {response.reason_phrase}".rstrip()
    if status in (401, 403):
        message += ": check LABEL_STUDIO_API_KEY, or the permissions of the storage"
    if status >= 500 or status in _RETRY_LATER:
        raise ImageFetchError(message)
    raise _final(message)


def _body(response: httpx.Response, url: httpx.URL, policy: FetchPolicy) -> bytes:
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > policy.max_bytes:
        raise _too_large(str(url), policy)
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in _ENCODINGS:
        raise _final(f"{printable(str(url))} is sent as {encoding[:40]!r}: serve it as it is")
    data = bytearray()
    for chunk in response.iter_bytes():  # as they come: to collect them first would be to wait for whoever is slow
        data += chunk
        if len(data) > policy.max_bytes:
            raise _too_large(str(url), policy)
    return bytes(data)


def _within(data: bytes, url: str, policy: FetchPolicy) -> bytes:
    if len(data) > policy.max_bytes:
        raise _too_large(url, policy)
    return data


def _final(message: str) -> ImageError:
    error = ImageFetchError(message)
    error.retryable = False
    return error


def _too_large(url: str, policy: FetchPolicy) -> ImageError:
    return _final(
        f"{printable(url)} is larger than {policy.max_bytes:,} bytes (BOXLIFT_MAX_IMAGE_BYTES): "
        "shrink it or raise the limit"
    )


def _too_slow(url: str, policy: FetchPolicy) -> ImageError:
    return ImageFetchError(
        f"{printable(url)} took longer than {policy.timeout:g} s (BOXLIFT_FETCH_TIMEOUT): check the server"
    )
