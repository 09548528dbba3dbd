"""Redis, Label Studio, a worker and the backend as real processes on free loopback ports.

    with Stack(folder) as stack:
        stack.start("efficientnet_lite0")
        stack.studio_api()…

Whatever ends the owner ends them too. State and logs lie in `folder`; a second start finds everything again.
"""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Self

import httpx
import redis

from backend.demo.processes import LOOPBACK, Child, ProcessError, base_environment, free_port
from backend.demo.studio_api import StudioApi
from backend.demo.studio_server import StudioServer
from backend.redis_server import RedisServer
from worker.contract import FAILURES_KEY, MODEL_KEY, Model

KEEP = ("XDG_CACHE_HOME", "BOXLIFT_CACHE_DIR", "BOXLIFT_DEVICE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""What the caller's environment may say to the worker: where weights are and what it computes on."""
STUDIO_SECONDS = WORKER_SECONDS = 600.0
BACKEND_SECONDS = 300.0
"""Patience with each: a busy machine is no fault, and a process that ends is noticed at once."""


class Stack:
    """The whole product on this machine. Use as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        studio_port: int = 0,
        backend_port: int = 0,
        local_files: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are further environment variables for worker and backend; `local_files` is Label Studio's
        root for local files. Ports of 0 are chosen; taken ones are replaced by free ones.
        """
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _only_one(self.folder)
        self.redis = RedisServer(self.folder / "redis")
        self.studio = StudioServer(self.folder / "label-studio", port=studio_port, local_files=local_files)
        self.backend_port = free_port(backend_port)
        self.backend_url = f"http://{LOOPBACK}:{self.backend_port}"
        self._settings = dict(settings or {})
        self.worker: Child | None = None
        self.backend: Child | None = None

    def start_studio(self) -> None:
        """Start Redis, which is there at once, and Label Studio, which takes a while."""
        self.redis.start()
        with redis.Redis.from_url(self.redis.url) as client:
            client.delete(MODEL_KEY)  # what a worker of an earlier start announced
        self.studio.start()

    def start_worker(self, network: str, weights: Path | None = None) -> None:
        """Start a worker; `model` says when it is ready."""
        arguments = ["worker", "--network", network]
        if weights is not None:
            arguments += ["--weights", str(weights.absolute())]
        self.worker = self._boxlift("worker", arguments)

    def start_backend(self) -> None:
        """Start the ML backend."""
        self.backend = self._boxlift("backend", ["serve"])

    def start(self, network: str, weights: Path | None = None) -> Model:
        """Start everything and wait until it answers. The model that the worker runs."""
        self.start_studio()
        self.studio.wait(STUDIO_SECONDS)
        self.start_worker(network, weights)
        self.start_backend()
        return self.wait()

    def wait(self) -> Model:
        """Wait for worker and backend. Raises ProcessError with the end of the log of the one that failed."""
        if self.worker is None or self.backend is None:
            raise ProcessError("worker and backend were not started")
        self.worker.wait_until(lambda: self.model() is not None, seconds=WORKER_SECONDS)
        self.backend.wait_until(self._backend_answers, seconds=BACKEND_SECONDS)
        model = self.model()
        if model is None:
            raise ProcessError(f"the worker took its model back; see {self.worker.log}")
        return model

    def model(self) -> Model | None:
        """The model that a worker has announced."""
        with redis.Redis.from_url(self.redis.url) as client:
            text = client.get(MODEL_KEY)
        return Model.from_dict(json.loads(str(text, "utf-8"))) if isinstance(text, bytes) else None

    def failures(self) -> list[str]:
        """Why photos could not be used, newest first."""
        with redis.Redis.from_url(self.redis.url) as client:
            return [str(json.loads(text)["reason"]) for text in client.lrange(FAILURES_KEY, 0, -1)]

    def studio_api(self) -> StudioApi:
        """Label Studio's API as its first user."""
        return StudioApi(self.studio.url, self.studio.login.token)

    def check(self) -> None:
        """Raise ProcessError if a process has ended."""
        for child in (self.studio.process, self.worker, self.backend):
            if child is not None:
                child.check()
        if self.redis.pid is None:
            raise ProcessError("Redis ended")

    def stop(self) -> None:
        """End everything, those that use the others first."""
        for child in (self.worker, self.backend):
            if child is not None:
                child.stop()
        self.worker = self.backend = None
        self.studio.stop()
        self.redis.stop()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Environment of worker and backend."""
        return base_environment(keep=KEEP) | {
            "REDIS_URL": self.redis.url,
            "LABEL_STUDIO_URL": self.studio.url,
            "LABEL_STUDIO_API_KEY": self.studio.login.token,
            "BOXLIFT_PORT": str(self.backend_port),
            **self._settings,
        }

    def _boxlift(self, name: str, arguments: list[str]) -> Child:
        command = [sys.executable, "-m", "backend.cli", *arguments]
        return Child(name, command, log=self.folder / f"{name}.log", env=self.environment(), cwd=self.folder)

    def _backend_answers(self) -> bool:
        try:
            return httpx.get(f"{self.backend_url}/health", timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False


def _only_one(folder: Path) -> IO[str]:
    """Hold `folder` for this process. Raises ProcessError where another one has it."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ProcessError(f"a demo runs in {folder} already: stop it, or name another folder") from None
    return lock
