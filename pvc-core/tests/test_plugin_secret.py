"""Secrets by file reference."""

import pytest

from pvc_core.plugin import ConfigError, Secret
from pvc_core.plugin.config import sensitive
from pvc_core.runtime.trace import redacted, redacted_arguments


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    file.chmod(0o600)
    return file


def test_it_is_read_when_it_is_used(file):
    secret = Secret(str(file))
    assert secret.read() == "hunter2"
    file.write_text("changed")
    assert secret.read() == "changed"


def test_it_is_never_shown(file):
    secret = Secret(str(file))
    secret.read()
    assert "hunter2" not in f"{secret!r} {secret} {redacted(secret)}"
    assert repr(secret) == f"Secret(file {str(file)!r})"
    assert secret == Secret(str(file))
    assert len({secret, Secret(str(file)), Secret("/other")}) == 2


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_one_that_others_can_open_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(ConfigError, match=rf"open to every user \(mode {mode:04o}\); run: chmod 0600"):
        Secret(str(file)).read()


def test_one_for_a_group_is_accepted(file):
    file.chmod(0o640)
    assert Secret(str(file)).read() == "hunter2"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"\xff\xfe", "not UTF-8"), (b"x" * 70000, "larger than 65536 bytes")],
)
def test_a_file_that_cannot_be_a_secret(file, content, says):
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        Secret(str(file)).read()


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        Secret(str(tmp_path / "nothing")).read()
    with pytest.raises(ConfigError, match="not a regular file"):
        Secret(str(tmp_path)).read()


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "bmc_password",
        "secret",
        "token",
        "api_key",
        "key",
        "passphrase",
        "community",
        "apikey",
        "api-key",
        "kg",
    ],
)
def test_names_that_may_hold_a_secret(name):
    assert sensitive(name)
    assert redacted_arguments({name: "hunter2"}) == f"{name}=***"
    assert not sensitive(f"{name}_file")


def test_traces_show_shapes_only():
    text = redacted_arguments(
        {
            "parameters": {"user": "admin", "pw": "hunter2"},
            "data": b"hunter2",
            "inner_xml": "<secret>hunter2</secret>",
            "long": "hunter2" * 50,
            "items": ["a"] * 9,
            "function": print,
            "count": 3,
        }
    )
    assert "hunter2" not in text
    assert "admin" not in text
    assert "parameters={user: ..., pw: ...}" in text
    assert "data=<7 bytes>" in text
    assert "count=3" in text
    assert "4 more" in text
