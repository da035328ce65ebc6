"""A real guest agent in a real guest: what it freezes is clean, and what stands still is of one instant."""

import os
import re
import shutil
import subprocess
import uuid
from typing import Any

import pytest

from pvc_core.hypervisor.api import AgentUnavailable, DomainPlan, DomainState
from pvc_core.hypervisor.libvirt import LibvirtHypervisor
from pvc_core.model.vm import DirectKernel, Disk, VmSpec
from pvc_core.plugin.specs.storage import DiskSource
from pvc_core.testkit.lan import entered
from pvc_core.testkit.waiting import eventually
from pvc_sandbox.host import Host
from pvc_sandbox.images.linux import LINUX_MEMORY_MIB, LINUX_UP, tiny_linux
from pvc_sandbox.layout import claim_layout
from pvc_sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

DISKS = ("vda", "vdb")


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    directory = tmp_path_factory.mktemp("agent")
    layout = claim_layout(directory, f"agent-{os.getpid()}")
    tiny_linux(agent=True)  # from a cache, or from the outside, which cannot be reached from inside
    host = Host(layout, 1)
    try:
        host.start()
        with entered(layout.switch):
            yield host
    finally:
        Sandbox(layout.name, directory).down()


class _Guest:
    """A guest that counts into a file on each of two disks, on one after the other."""

    def __init__(self, host, directory, cache="none", arguments=None):
        self.vm = str(uuid.uuid4())
        self.log = directory / "console.log"
        self.images = {name: directory / f"{name}.raw" for name in DISKS}
        self.hypervisor = LibvirtHypervisor(host.uri, accelerator="tcg", run_directory=str(directory / "run"))
        for image in self.images.values():
            with image.open("wb") as file:
                file.truncate(16 << 20)
            subprocess.run(["mkfs.ext4", "-q", image], check=True)
        linux = tiny_linux(agent=True)
        words: dict[str, Any] = {"files": ",".join(DISKS), "agent": 1} if arguments is None else arguments
        kernel = DirectKernel(kernel=str(linux.kernel), initrd=str(linux.initrd), cmdline=linux.command_line(**words))
        self.hypervisor.start(
            DomainPlan(
                vm=VmSpec(
                    id=self.vm,
                    name="web",
                    memory_mib=LINUX_MEMORY_MIB,
                    vcpus=1,
                    direct_kernel=kernel,
                    disks=tuple(Disk(pool="test", volume=name, cache=cache) for name in DISKS),
                ),
                disks=tuple(
                    DiskSource(type="file", source_xml=f"<source file='{image}'/>") for image in self.images.values()
                ),
                nics=(),
                console_log=str(self.log),
            )
        )

    def state(self):
        return self.hypervisor.domain(self.vm).state

    def until_it_counts(self):
        eventually(lambda: LINUX_UP in self.log.read_text(errors="replace"), "the guest to boot", within_s=60)
        before = self.told()
        eventually(lambda: self.told() > before, "it to count", within_s=30)

    def until_agent(self):
        eventually(self._agent_answers, "the agent to answer", within_s=60)

    def _agent_answers(self):
        try:
            self.hypervisor.thaw(self.vm, 2.0)
        except AgentUnavailable:
            return False
        return True

    def signal_agent(self, name):
        """Stop the agent, or let it go on, from the shell on the guest's console; returns when that is done."""
        done = f"{name}-{uuid.uuid4().hex[:8]}"
        console = self.hypervisor.console(self.vm)
        # The word that says so is put together by the shell: what was typed is echoed.
        console.write(f"kill -{name} $(pidof qemu-ga) && echo {done[:6]}''{done[6:]}\n".encode())
        eventually(lambda: done in self.log.read_text(errors="replace"), f"the agent to get SIG{name}", within_s=30)
        console.close()

    def copies(self, directory):
        """Return copies of the disks as they are."""
        directory.mkdir()
        return {name: shutil.copy(image, directory / image.name) for name, image in self.images.items()}

    def told(self):
        """Return how far it has counted by what it says on its console."""
        return max(
            map(int, re.findall(r"counted (\d+)\r?$", self.log.read_text(errors="replace"), re.MULTILINE)), default=0
        )


def count(image):
    """Return the number in the file on a file system."""
    shown = subprocess.run(["debugfs", "-R", "cat /count", image], check=True, capture_output=True, text=True).stdout
    return int(shown) if shown.strip() else 0


def is_clean(image):
    shown = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True).stdout
    return "needs_recovery" not in shown


def recovered(image):
    """Replay the journal, as a mount does, and return the number in the file; demands that nothing else was wrong."""
    done = subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    return count(image)


@pytest.fixture
def guest(host, tmp_path):
    made = []

    def make(**more):
        made.append(_Guest(host, tmp_path, **more))
        return made[-1]

    yield make
    for each in made:
        each.hypervisor.destroy(each.vm)
        each.hypervisor.close()


def test_frozen_file_systems_are_clean_and_go_on_when_they_are_thawed(guest, tmp_path):
    web = guest()
    web.until_it_counts()
    web.until_agent()
    assert web.hypervisor.freeze(web.vm, 10.0) == 2
    web.hypervisor.pause(web.vm)
    frozen = web.copies(tmp_path / "frozen")
    web.hypervisor.resume(web.vm)
    assert all(is_clean(image) for image in frozen.values())
    first, second = (count(image) for image in frozen.values())
    assert first - second in (0, 1)
    # Nothing was written to them since they were frozen.
    assert [count(image) for image in web.images.values()] == [first, second]
    web.hypervisor.thaw(web.vm, 10.0)
    web.until_it_counts()
    running = web.copies(tmp_path / "running")
    assert not any(is_clean(image) for image in running.values())


@pytest.mark.parametrize("cache", ["none", "writeback"])
def test_what_stands_still_is_of_one_instant_whatever_is_cached(guest, tmp_path, cache):
    web = guest(cache=cache)
    web.until_it_counts()
    for attempt in range(5):
        web.hypervisor.pause(web.vm)
        assert web.state() is DomainState.PAUSED
        copies = web.copies(tmp_path / f"copy{attempt}")
        web.hypervisor.resume(web.vm)
        first, second = (recovered(image) for image in copies.values())
        assert first > 0
        assert first - second in (0, 1)
        web.until_it_counts()


def test_an_agent_that_hangs_does_not_hold_anybody_up(guest):
    web = guest()
    web.until_it_counts()
    web.until_agent()
    web.signal_agent("STOP")
    with pytest.raises(AgentUnavailable):
        web.hypervisor.freeze(web.vm, 2.0)
    web.signal_agent("CONT")
    web.until_agent()
    assert web.hypervisor.freeze(web.vm, 10.0) == 2
    web.signal_agent("STOP")
    with pytest.raises(AgentUnavailable):
        web.hypervisor.thaw(web.vm, 2.0)
    web.signal_agent("CONT")
    web.until_agent()
    web.until_it_counts()


def test_a_guest_whose_agent_is_not_up_has_none(guest):
    web = guest(arguments={})
    eventually(lambda: LINUX_UP in web.log.read_text(errors="replace"), "the guest to boot", within_s=60)
    with pytest.raises(AgentUnavailable):
        web.hypervisor.freeze(web.vm, 2.0)
