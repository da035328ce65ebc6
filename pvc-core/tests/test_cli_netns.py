"""Entering the network namespace of a cluster on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvc_core.client.netns import enter
from pvc_core.model.errors import InvalidRequest

LOOK = """
import os, sys
from pvc_core.client.netns import enter
enter(sys.argv[1])
print(os.readlink("/proc/thread-self/ns/net"))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"pvc-test-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
    yield name
    subprocess.run(["ip", "netns", "delete", name], check=True, timeout=30)


@pytest.mark.real
@pytest.mark.parametrize("as_path", [False, True], ids=["name", "path"])
def test_the_process_is_in_the_namespace_afterwards(namespace: str, as_path: bool) -> None:
    path = f"/run/netns/{namespace}"
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, path if as_path else namespace],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.strip() == f"net:[{Path(path).stat().st_ino}]"
    assert str(Path(path).stat().st_ino) not in str(Path("/proc/self/ns/net").readlink())


def test_a_namespace_that_is_not_there_is_told() -> None:
    with pytest.raises(
        InvalidRequest, match=r"cannot enter network namespace 'no-such': /run/netns/no-such: No such file"
    ):
        enter("no-such")


def test_a_file_that_is_no_namespace_is_told(tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.write_text("")
    with pytest.raises(InvalidRequest, match="cannot enter network namespace"):
        enter(str(file))
