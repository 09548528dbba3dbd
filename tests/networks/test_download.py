"""Weights from a real server: whole and checked, or an error and nothing on the disk."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from servers import FileServer, serving
from torch import nn

import worker.networks.load
from worker.errors import WeightsError
from worker.networks import NETWORKS, load_network
from worker.networks import download as module
from worker.networks.download import download
from worker.networks.sources import Packaged, Published

NAME = "weights-file.pth"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(os.urandom(1 << 20)) as running:
        yield running


def _files(folder: Path) -> set[str]:
    """What lies there, without the lock file."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.is_dir() else set()


def _process(server: FileServer, target: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path; from worker.networks.download import download;"
        "download(sys.argv[1], Path(sys.argv[2]), sys.argv[3], progress=False); print('done')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, server.url(NAME), str(target), server.sha256[:8]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_good_file_arrives_whole_and_is_kept(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / NAME
    assert download(server.url(NAME), target, server.sha256[:8], progress=False) == target
    assert target.read_bytes() == server.content
    assert _files(target.parent) == {NAME}
    download(server.url(NAME), target, server.sha256[:8], progress=False)
    assert server.started == 1


def test_progress_is_shown_on_stderr_if_asked_for(
    server: FileServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    download(server.url(NAME), tmp_path / NAME, server.sha256[:8], progress=True)
    shown = capfd.readouterr()
    assert "100%" in shown.err
    assert "1.00M/1.00M" in shown.err
    assert shown.out == ""
    download(server.url(NAME), tmp_path / "again.pth", server.sha256[:8], progress=False)
    assert capfd.readouterr().err == ""


def _fails(server: FileServer, folder: Path, match: str, sha256: str | None = None) -> None:
    with pytest.raises(WeightsError, match=match):
        download(server.url(NAME), folder / NAME, sha256 or server.sha256[:8], progress=False)
    assert _files(folder) == set()


def test_a_file_with_another_hash_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    _fails(server, tmp_path, "damaged or cut off.*thrown away; try again", sha256="00000000")


def test_a_file_that_is_cut_off_is_thrown_away_and_the_next_try_works(server: FileServer, tmp_path: Path) -> None:
    server.sends = 300_000
    _fails(server, tmp_path, "damaged or cut off")
    server.sends = None
    download(server.url(NAME), tmp_path / NAME, server.sha256[:8], progress=False)
    assert (tmp_path / NAME).read_bytes() == server.content


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_reported_with_its_status(status: int, server: FileServer, tmp_path: Path) -> None:
    server.status = status
    _fails(server, tmp_path, rf"{NAME} could not be downloaded: .* answered {status}")


def test_no_server_at_all(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(WeightsError, match=r"could not be downloaded from .*refused"):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/{NAME}", tmp_path / NAME, "00", progress=False)
    assert _files(tmp_path) == set()


def test_a_server_that_falls_silent_is_given_up(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.5)
    server.pause_after = 300_000
    _fails(server, tmp_path, "sent nothing for")
    assert socket.getdefaulttimeout() is None


def test_two_processes_share_one_download(server: FileServer, tmp_path: Path) -> None:
    server.pause_after = 300_000
    both = [_process(server, tmp_path / NAME) for _ in range(2)]
    assert server.paused.wait(600)
    server.go_on.set()
    for process in both:
        out, err = process.communicate(timeout=600)
        assert (process.returncode, out) == (0, "done\n"), err
    assert server.started == 1
    assert (tmp_path / NAME).read_bytes() == server.content
    assert _files(tmp_path) == {NAME}


def test_a_killed_download_leaves_no_broken_file_and_the_next_one_cleans_up(
    server: FileServer, tmp_path: Path
) -> None:
    server.pause_after = 300_000
    process = _process(server, tmp_path / NAME)
    assert server.paused.wait(600)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)
    assert NAME not in _files(tmp_path)
    assert len(_files(tmp_path)) == 1, "the part that had arrived"
    server.go_on.set()
    download(server.url(NAME), tmp_path / NAME, server.sha256[:8], progress=False)
    assert _files(tmp_path) == {NAME}
    assert (tmp_path / NAME).read_bytes() == server.content


def test_a_folder_that_cannot_be_written_is_named(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"could not be downloaded into .*file/cache"):
        download(server.url(NAME), tmp_path / "file" / "cache" / NAME, server.sha256[:8], progress=False)
    assert server.started == 0


@contextlib.contextmanager
def _powerless() -> Iterator[None]:
    """Root may write everywhere; be nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_named_and_one_that_holds_the_file_is_enough(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Published(server.url(NAME), server.sha256[:8])
    (tmp_path / NAME).write_bytes(server.content)
    tmp_path.chmod(0o555)
    monkeypatch.chdir(tmp_path)  # relative paths: nobody may not come here from the root
    try:
        with _powerless(), pytest.raises(WeightsError, match=r"could not be downloaded into .*Permission denied"):
            download(server.url(NAME), Path("other.pth"), server.sha256[:8], progress=False)
        with _powerless():
            assert source.fetch(Path(), progress=False) == Path(NAME)
    finally:
        tmp_path.chmod(0o755)
    assert server.started == 0


def test_a_folder_that_may_not_be_looked_into_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", "closed")
    tmp_path.chmod(0o755)
    with _powerless():
        assert Published("http://127.0.0.1/weights-00000000.pth", "00000000").find(Path("closed")) is None


# The way through load_network


@pytest.fixture
def published(
    random_network: Callable[..., nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FileServer]:
    """squeezenet1_1, with random weights that a server of this machine publishes."""
    path = tmp_path / "published.pth"
    torch.save(random_network("squeezenet1_1", 1000, torch.float32).state_dict(), path)
    with serving(path.read_bytes()) as running:
        url = running.url(f"squeezenet1_1-{running.sha256[:8]}.pth")
        entry = dataclasses.replace(NETWORKS["squeezenet1_1"], source=Published.from_url(url))
        monkeypatch.setattr(worker.networks.load, "NETWORKS", {"squeezenet1_1": entry})
        yield running


def test_a_network_downloads_its_weights_once(published: FileServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = load_network("squeezenet1_1", cache_dir=cache, progress=False)
    assert first.weights_digest == published.sha256
    assert _files(cache) == {f"squeezenet1_1-{published.sha256[:8]}.pth"}
    assert load_network("squeezenet1_1", cache_dir=cache).weights_digest == published.sha256
    assert published.started == 1


def test_the_default_cache_follows_the_desktop_standard(published: FileServer) -> None:
    load_network("squeezenet1_1", progress=False)
    assert _files(Path(os.environ["XDG_CACHE_HOME"]) / "boxlift") == {f"squeezenet1_1-{published.sha256[:8]}.pth"}


def test_a_file_that_was_put_by_hand_needs_no_connection(published: FileServer, tmp_path: Path) -> None:
    (tmp_path / f"squeezenet1_1-{published.sha256[:8]}.pth").write_bytes(published.content)
    load_network("squeezenet1_1", cache_dir=tmp_path)
    assert published.started == 0


def test_what_torchvision_has_downloaded_already_is_used(published: FileServer, tmp_path: Path) -> None:
    folder = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / f"squeezenet1_1-{published.sha256[:8]}.pth").write_bytes(published.content)
    load_network("squeezenet1_1", cache_dir=tmp_path / "cache")
    assert published.started == 0


def test_damage_in_the_cache_is_noticed_on_every_start(published: FileServer, tmp_path: Path) -> None:
    load_network("squeezenet1_1", cache_dir=tmp_path / "cache", progress=False)
    path = tmp_path / "cache" / f"squeezenet1_1-{published.sha256[:8]}.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, amid the weights
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"SHA-256 starts with .* instead of .*Delete it"):
        load_network("squeezenet1_1", cache_dir=tmp_path / "cache")


def test_offline_the_error_says_which_file_to_put_where(published: FileServer, tmp_path: Path) -> None:
    published.status = 503
    name = f"squeezenet1_1-{published.sha256[:8]}.pth"
    with pytest.raises(WeightsError) as caught:
        load_network("squeezenet1_1", cache_dir=tmp_path / "cache", progress=False)
    message = str(caught.value)
    assert f"put {name} (from {published.url(name)}) into {tmp_path / 'cache'}" in message
    assert "--weights FILE" in message


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    source = Packaged("no_such_package_of_weights", "file.pth", "00")
    assert source.find(tmp_path) is None
    with pytest.raises(WeightsError, match=r"install the package no_such_package_of_weights.*--weights FILE"):
        source.fetch(tmp_path, progress=False)
