"""Coverage-guided fuzzing of what opens strangers' bytes: image files, data: URIs and addresses.

    pip install atheris                                  # not in the locks: not every machine has a wheel of it
    python scripts/fuzz_images.py decode --seconds 600   # image files of every format
    python scripts/fuzz_images.py address --seconds 600  # addresses, and what is said about them

Ends with an error, and a file that shows it, at the first input that raises anything but Boxlift's own errors,
gives a picture that is none, or takes more than 25 s or 2 GB. Findings are told in SECURITY.md.
"""

from __future__ import annotations

import argparse
import io
import socket
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

with atheris.instrument_imports(include=["worker", "PIL"]):
    from PIL import Image

    from worker.contract import embedded_address, is_data_uri
    from worker.errors import ImageDecodeError, ImageError
    from worker.images.decode import FORMATS, ImageLimits, decode
    from worker.images.fetch import FetchPolicy, fetch, printable

    Image.init()  # all of Pillow's plugins, so that they are instrumented too

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=4_000_000)
SECRET = "pa55word"  # noqa: S105 - planted, to be looked for


def one_file(data: bytes) -> None:
    """Any bytes are an upright RGB picture within the limits, or an ImageDecodeError."""
    try:
        photo = decode(data, LIMITS)
    except ImageDecodeError:
        return
    if photo.image.mode != "RGB" or photo.width * photo.height > LIMITS.max_pixels or min(photo.image.size) < 1:
        raise AssertionError(f"decoded to {photo.image.mode} {photo.image.size} of {photo.size}")


def one_address(data: bytes) -> None:
    """Any text is refused or cannot be had: with nothing allowed, nothing is ever read or asked."""
    text = atheris.FuzzedDataProvider(data).ConsumeUnicodeNoSurrogates(400)
    shown = printable(f"https://me:{SECRET}@host/{text}{'&' if '?' in text else '?'}token={SECRET}")
    if SECRET in shown:
        raise AssertionError(f"a secret is shown: {shown!r}")
    policy = FetchPolicy(
        studio_url="http://studio.test:8080",
        hosts=("*",),
        roots=(Path(tempfile.gettempdir()) / "none",),
        timeout=1.0,
    )
    carried = embedded_address(
        3, 7, text
    )  # what a job says for it: another address for cloud storage and data: URIs
    if carried != text and not (carried.startswith(("/api/tasks?", "/tasks/7/resolve/?")) and carried.isascii()):
        raise AssertionError(f"{text!r} became {carried!r}")
    for address in {text, carried}:
        try:
            got = fetch(address, policy)
        except ImageError:
            continue
        if not is_data_uri(address):
            raise AssertionError(f"{address!r} gave {len(got)} bytes")


def seeds(folder: Path, target: str) -> None:
    """A small valid file of each format and mode, or one address of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    if target == "address":
        web = ("http://0x7f.1/a", "https://u:p@[::ffff:10.0.0.1]:80/a?b#c", "data:image/png;base64,AAAA")
        cloud = ("s3://bucket/a b.jpg", "GS://bucket/\u00e4.jpg", "azure-blob://container/1.jpg?x#y")
        paths = ("file:///x", "/data/local-files/?d=../a", "/api/tasks?project=1&id=2#0", "a/../b")
        for number, text in enumerate(web + cloud + paths):
            (folder / str(number)).write_bytes(text.encode())
        return
    for kind in FORMATS:
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"):
            out = io.BytesIO()
            try:
                Image.new(mode, (17, 9)).save(out, kind)
            except (OSError, ValueError, KeyError):
                continue  # not every format has every mode
            (folder / f"{kind}-{mode.replace(';', '')}").write_bytes(out.getvalue())


def main() -> None:
    """Read the command line and fuzz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=("decode", "address"))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=None, help="corpus and findings; a new one if not given")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="boxlift-fuzz-"))
    seeds(folder / "corpus", given.target)
    if given.target == "address":

        def nowhere(host: object, *args: object, **kwargs: object) -> list[object]:
            raise OSError("no network while fuzzing")

        socket.getaddrinfo = nowhere
    options = [
        f"-max_total_time={given.seconds}",
        "-timeout=25",
        "-rss_limit_mb=2048",
        "-max_len=65536",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/",
    ]
    print(f"corpus and findings in {folder}", flush=True)
    target = one_file if given.target == "decode" else one_address
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
