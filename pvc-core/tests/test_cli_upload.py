"""`pvc storage volume upload`: a file of this machine, sent to the service of a node over real sockets."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pvc_core.client import service as client_service
from pvc_core.client import upload as client_upload
from pvc_core.client.image_file import PART_BYTES
from pvc_core.config.schema import Service
from pvc_core.model.errors import Unavailable
from pvc_core.node.service import NodeService, ServiceParts
from pvc_core.node.state import NodeState
from pvc_core.node.uploads import Uploads
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, Ran, add_node
from pvc_core.testkit.simulator.clock import VirtualClock

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vpc")


class Site:
    """One node, its service, and `pvc`."""

    def __init__(self, directory: Path) -> None:
        token = directory / "token"
        token.write_text("secret\n")
        token.chmod(0o600)
        self.spool = directory / "upload"
        self.spool.mkdir()
        parts = ServiceParts(
            node="node1",
            hypervisor=SimpleNamespace(),  # type: ignore[arg-type]
            lease=SimpleNamespace(),  # type: ignore[arg-type]
            state=NodeState(VirtualClock(), lambda: None),
            console_directory=directory,
            token_file=token,
            uploads=Uploads(self.spool),
        )
        self.service = NodeService(parts, "127.0.0.1", 0, poll_s=0.01)
        self.service.start()
        tree = MemoryTree()
        self.pvc = CommandLine(tree, service=Service(token_file=str(token)))
        add_node(tree, "node1", address="127.0.0.1", service_port=self.service.port)
        assert self.pvc("storage", "pool", "add", "ssd", "--driver", "dir", "--no-wait").status == 0

    def upload(self, file: Path, *words: str, volume: str = "ssd/web1") -> Ran:
        return self.pvc("storage", "volume", "upload", volume, str(file), "--no-wait", *words)

    def tasks(self) -> list[dict[str, object]]:
        return list(self.pvc("task", "list", "-f", "json").json())

    def sent(self) -> list[Path]:
        return list(self.spool.iterdir())

    def nothing_was_done(self) -> bool:
        return self.tasks() == [] and self.sent() == []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.service.stop()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file of three parts: data, a hole, data of which some is zeros."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(os.urandom(1 << 20))
        file.seek(2 * PART_BYTES)
        file.write(bytes(PART_BYTES) + b"the end")
    return path


def test_a_file_is_sent_without_its_holes_and_a_task_makes_a_volume_of_it(site: Site, image: Path) -> None:
    ran = site.upload(image, "--description", "the web", "-f", "json")
    assert ran.status == 0, ran.err
    (task,) = site.tasks()
    assert ran.json()["task"]["id"] == task["id"]
    (sent,) = site.sent()
    assert (task["kind"], task["node"], task["subject"]) == ("volume.import", "node1", "volume ssd/web1")
    assert task["arguments"]["path"] == str(sent)  # type: ignore[index]
    assert task["arguments"]["format"] == "raw"  # type: ignore[index]
    assert sent.read_bytes() == image.read_bytes()
    assert sent.stat().st_blocks * 512 < 2 << 20
    said = [line.split(" % ") for line in ran.err.splitlines()]
    assert {line[1] for line in said} == {"of 48.0 MiB to node1"}
    assert (said[0][0], said[-1][0]) == ("volume ssd/web1: sent 0", "volume ssd/web1: sent 100")


@pytest.mark.parametrize("format_", FORMATS)
def test_the_format_is_that_of_the_name_and_the_contents_must_agree(site: Site, tmp_path: Path, format_: str) -> None:
    suffix = {"vpc": "vhd", "raw": "img"}.get(format_, format_)
    path, unnamed = tmp_path / f"disk.{suffix}", tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", format_, path, "8M"], check=True)
    path.rename(unnamed)
    if format_ != "raw":
        ran = site.upload(unnamed)
        assert f"its contents are a {format_} image; say --image-format {format_}, or raw" in ran.err
        ran = site.upload(unnamed, "--image-format", "qcow2" if format_ != "qcow2" else "vdi")
        assert f"is a {format_} image, no" in ran.err
    else:
        ran = site.upload(unnamed, "--image-format", "qcow2")
        assert "is no qcow2 image; say --image-format raw" in ran.err
    assert (ran.status, site.nothing_was_done()) == (2, True)
    unnamed.rename(path)
    assert site.upload(path).status == 0
    assert site.upload(path, "--image-format", "raw", volume="ssd/web2").status == 0
    assert [task["arguments"]["format"] for task in site.tasks()] == [format_, "raw"]  # type: ignore[index]


def test_a_fixed_vhd_is_known_by_its_end(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=fixed", path, "8M"], check=True)
    assert "its contents are a vpc image" in site.upload(path).err


@pytest.mark.parametrize(
    ("volume", "words", "said"),
    [
        ("web1", (), "pool/volume"),
        ("ssd/web one", (), "volume name"),
        ("hdd/web1", (), "no storage pool named 'hdd'"),
        ("ssd/web1", ("--node", "node9"), "no node named 'node9'"),
    ],
)
def test_what_cannot_become_a_volume_is_not_sent(
    site: Site, image: Path, volume: str, words: tuple[str, ...], said: str
) -> None:
    ran = site.upload(image, *words, volume=volume)
    assert said in ran.err
    assert (ran.status > 0, site.nothing_was_done()) == (True, True)


def test_a_name_that_is_taken_is_told_before_anything_is_sent(site: Site, image: Path) -> None:
    assert site.upload(image).status == 0
    ran = site.upload(image)
    assert "there is a volume ssd/web1 already" in ran.err
    assert len(site.sent()) == 1


def test_a_file_that_cannot_be_read_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, said in (("missing", "there is no file"), ("empty", "is empty"), ("", "is not a regular file")):
        ran = site.upload(tmp_path / name)
        assert (ran.status, said in ran.err) == (2, True)
    assert site.nothing_was_done()


def test_a_file_that_is_changed_meanwhile_makes_no_volume(
    site: Site, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = client_service.ServiceClient.upload_part

    def change(*args: object) -> None:
        send(*args)  # type: ignore[arg-type]
        with image.open("r+b") as file:
            file.write(b"changed")

    monkeypatch.setattr(client_service.ServiceClient, "upload_part", change)
    ran = site.upload(image)
    assert f"{image} was changed while it was sent; nothing was made of it" in ran.err
    assert (ran.status, site.nothing_was_done()) == (2, True)


def test_ctrl_c_leaves_nothing_behind(site: Site, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object) -> None:
        assert len(site.sent()) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(client_service.ServiceClient, "upload_part", press)
    ran = site.upload(image)
    assert "volume ssd/web1: stopped; no volume was made, and what was sent is removed" in ran.err
    assert (ran.status, site.nothing_was_done()) == (130, True)


@pytest.mark.parametrize(("failures", "status"), [(3, 0), (1000, 1)])
def test_a_node_that_does_not_answer_is_asked_again_for_a_while(
    site: Site, image: Path, monkeypatch: pytest.MonkeyPatch, failures: int, status: int
) -> None:
    send, asked, now = client_service.ServiceClient.upload_part, [0], [1000.0]

    def fail(*args: object) -> None:
        asked[0] += 1
        if asked[0] <= failures:
            raise Unavailable("the service of node node1 does not answer: refused")
        send(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(client_service.ServiceClient, "upload_part", fail)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(client_upload, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now[0]))
    ran = site.upload(image)
    assert (ran.status, "does not answer" in ran.err) == (status, status == 1)
    assert [len(site.tasks()), len(site.sent())] == ([1, 1] if status == 0 else [0, 0])
    assert now[0] - 1000.0 == (3.0 if status == 0 else 60.0)


def test_without_the_nodes_service_it_says_what_to_set(tmp_path: Path, image: Path) -> None:
    tree = MemoryTree()
    pvc = CommandLine(tree)
    add_node(tree, "node1")
    assert pvc("storage", "pool", "add", "ssd", "--driver", "dir", "--no-wait").status == 0
    ran = pvc("storage", "volume", "upload", "ssd/web1", str(image))
    assert (ran.status, "set service.token_file in the configuration" in ran.err) == (2, True)
