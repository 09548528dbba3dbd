"""A Dockerfile's install steps in a clean virtual environment, and what it runs then."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from backend.redis_server import RedisServer

from .processes import ROOT, ask, until


class Image:
    """As much of an image as can be had without Docker."""

    def __init__(self, dockerfile: Path, folder: Path) -> None:
        text = re.sub(r"\\\n\s*", "", dockerfile.read_text(encoding="utf-8"))
        build, _, self._final = text.partition("\nFROM ${PYTHON_IMAGE}\n")
        self._build = build.splitlines()
        self._source = folder / "src"
        self._home = folder / "home"
        self._home.mkdir()
        self.environment = folder / "opt"

    def install(self) -> None:
        """COPY and RUN, in order; `pip` is uv's, which does the same faster."""
        uv = (str(ROOT / "scripts" / "environment.sh"), "--uv", "--directory", str(self._source), "pip")
        for line in self._build:
            word, _, rest = line.partition(" ")
            if word == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    self._copy(ROOT / source, self._source / target / ("" if target.endswith("/") else "."))
            elif word == "RUN" and rest.startswith("python -m venv"):
                subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.environment)], check=True)
            elif word == "RUN":
                tool, *arguments = rest.split()
                assert tool == "pip", rest
                python = str(self.environment / "bin" / "python")
                command = [*uv, arguments[0], "-p", python, *arguments[1:]]
                told = subprocess.run(command, capture_output=True, text=True, check=False)
                assert told.returncode == 0, told.stderr

    def has(self, module: str) -> bool:
        """Whether a module is installed."""
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        return subprocess.run([str(self.environment / "bin" / "python"), "-c", code], check=False).returncode == 0

    def try_command(self) -> None:
        """CMD, with an environment of the image's own, until its HEALTHCHECK is content; then SIGTERM."""
        command = json.loads(re.findall(r"^CMD (.*)", self._final, re.MULTILINE)[-1])
        check = json.loads(re.findall(r"^HEALTHCHECK.*CMD (.*)", self._final, re.MULTILINE)[-1])
        log = self._home / "log"
        with RedisServer() as server, log.open("wb") as output:
            env = {
                "PATH": f"{self.environment / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self._home),
                "REDIS_URL": server.url,
                "BOXLIFT_PORT": "0",
                "BOXLIFT_NETWORK": "efficientnet_lite0",
                "BOXLIFT_CACHE_DIR": str(self._home / "cache"),
            }
            process = subprocess.Popen(command, cwd=self._home, env=env, stderr=output)

            def well() -> bool:
                assert process.poll() is None, log.read_text()
                if command[1] == "worker":
                    asked = subprocess.run(check, cwd=self._home, env=env, capture_output=True, check=False)
                    return asked.returncode == 0 and "ready" in log.read_text()
                found = re.search(r"listening on (http://\S+)", log.read_text())
                return bool(found) and ask(found[1], "/health").json()["status"] == "UP"

            try:
                until(well, "the health check")
            finally:
                process.terminate()
                assert process.wait(60) == 0, log.read_text()

    def _copy(self, source: Path, target: Path) -> None:
        ignore = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignore, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
