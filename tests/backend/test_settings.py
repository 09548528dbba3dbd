"""Settings out of the environment, and secrets out of files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backend.settings import Settings
from worker.errors import SettingsError

CONTENT = "redis://:s3cret-from-a-file@h/0"
SECRETS = [item for item in dataclasses.fields(Settings) if item.metadata["secret"]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "secret"
    found.write_text(CONTENT + "\n", encoding="utf-8")
    return found


@pytest.mark.parametrize("item", SECRETS, ids=lambda item: item.metadata["env"])
def test_every_secret_may_come_from_a_file(item: dataclasses.Field[str], file: Path) -> None:
    settings = Settings.from_env({item.metadata["env"] + "_FILE": str(file)})
    assert getattr(settings, item.name) == CONTENT
    assert "s3cret" not in repr(settings)
    assert any("s3cret-from-a-file" in secret for secret in settings.secrets()), "the log would show it"


def test_only_secrets_come_from_files(file: Path) -> None:
    assert Settings.from_env({"BOXLIFT_NETWORK_FILE": str(file)}) == Settings()


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "empty"), (b" \n", "empty"), (b"\xff\xfe", "not text")]
)
def test_files_that_hold_no_secret_are_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"LABEL_STUDIO_API_KEY_FILE.*{words}"):
        Settings.from_env({"LABEL_STUDIO_API_KEY_FILE": str(file)})


def test_a_secret_given_twice_is_a_mistake(file: Path) -> None:
    with pytest.raises(SettingsError, match="both set") as caught:
        Settings.from_env({"LABEL_STUDIO_API_KEY": "t0ken", "LABEL_STUDIO_API_KEY_FILE": str(file)})
    assert "t0ken" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "whole"),
    [
        ("redis://redis:6379/0", "redis://:p%40%2Fss@redis:6379/0"),
        ("rediss://boxlift@[::1]:6380/2", "rediss://boxlift:p%40%2Fss@[::1]:6380/2"),
        ("unix:///run/redis.sock?db=1", "unix://:p%40%2Fss@/run/redis.sock?db=1"),
        ("", "redis://:p%40%2Fss@127.0.0.1:6379/0"),
    ],
)
def test_a_password_apart_from_the_address(url: str, whole: str) -> None:
    import redis

    settings = Settings.from_env({"REDIS_URL": url, "REDIS_PASSWORD": "p@/ss"})
    assert settings.redis_url == whole
    pool = redis.ConnectionPool.from_url(settings.redis_url)
    assert pool.connection_kwargs["password"] == "p@/ss"
    assert {"p@/ss", "p%40%2Fss"} <= set(settings.secrets())


def test_two_passwords_are_a_mistake() -> None:
    with pytest.raises(SettingsError, match="leave one of them out"):
        Settings.from_env({"REDIS_URL": "redis://:a@h/0", "REDIS_PASSWORD": "b"})
    with pytest.raises(SettingsError, match="REDIS_URL cannot be read"):
        Settings.from_env({"REDIS_URL": "redis://[h/0", "REDIS_PASSWORD": "b"})


def test_secrets_inside_of_secrets_are_known() -> None:
    settings = Settings(redis_url="redis://:a%2Fb@h/0", basic_auth="me:pass")
    assert {"a%2Fb", "a/b", "pass", "me:pass", "bWU6cGFzcw=="} <= set(settings.secrets())
    assert Settings().secrets() == ()


def test_what_looks_like_a_setting_and_is_none_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    names = {"BOXLIFT_NETWROK": "resnet18", "BOXLIFT_COLOUR": "red", "BOXLIFT_NETWORK_FILE": "/x", "HOME": "/"}
    fine = {"BOXLIFT_NETWORK": "vgg16", "BOXLIFT_BASIC_AUTH_FILE": "", "BOXLIFT_GPUS": "cuda:0", "BOXLIFT_OLD": " "}
    assert Settings.from_env(names | fine).network == "vgg16"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3
    assert "BOXLIFT_NETWROK is set, but there is no such setting, perhaps BOXLIFT_NETWORK?" in told
    assert any(text.startswith("BOXLIFT_COLOUR") and "README" in text for text in told)
    assert "red" not in caplog.text
