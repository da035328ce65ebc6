"""`pvc vm nic`: the answers to people, on a state tree in memory whose nodes do nothing by themselves."""

import msgspec
import pytest

from pvc_core.model.base import Condition
from pvc_core.model.vm import NicLimits, VmClaim, VmState, VmStatus, started_with
from pvc_core.store import keys
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, Ran, add_network, add_node

MAC = "52:54:00:00:00:01"
WEB = f"name: web\nmemory: 64M\nvcpus: 4\nnode: node1\nnics: [{{network: lan, mac: '{MAC}'}}]\n"


class Web:
    """VM web, which runs with a NIC in lan, and the network dmz."""

    def __init__(self) -> None:
        tree = MemoryTree()
        self.pvc = CommandLine(tree)
        add_node(tree, "node1")
        for network in ("lan", "dmz"):
            add_network(tree, network)
        self.store = tree.connect()
        assert self.pvc("vm", "define", "-", "--start", "--no-wait", input=WEB).status == 0
        self.id = self.pvc("vm", "info", "web", "--format", "json").json()["view"]["id"]
        self.store.commit(create(keys.claim(self.id), VmClaim(vm=self.id, node="node1", lease=1, epoch=1)))
        status = VmStatus(
            id=self.id, state=VmState.RUNNING, node="node1", observed_generation=1, **started_with(self.spec())
        )
        self.store.commit(create(keys.vm_status(self.id), status))

    def spec(self):
        return read(self.store, keys.vm_spec(self.id)).value

    def report(self, **changes: object) -> None:
        """Let the node have seen what is wanted, and say more."""
        entry = read(self.store, keys.vm_status(self.id))
        self.store.commit(entry.put(msgspec.structs.replace(entry.value, **({"observed_generation": 99} | changes))))

    def nic(self, *args: str) -> Ran:
        return self.pvc("vm", "nic", *args)


@pytest.fixture
def web() -> Web:
    return Web()


def test_a_nic_is_given_with_its_settings_and_its_address_is_told(web: Web) -> None:
    options = ("--queues", "4", "-a", "10.0.0.5", "-a", "fd00::5", "-l", "in-average=10M", "--limit", "in_burst=512")
    ran = web.nic("add", "web", "dmz", *options, "--link", "down", "-p", "vf=3", "--no-wait")
    nic = web.spec().nics[1]
    assert (ran.status, ran.out) == (0, f"VM web has NIC {nic.mac} in network dmz\n")
    assert (nic.queues, nic.addresses, nic.link_up) == (4, ("10.0.0.5", "fd00::5"), False)
    assert (nic.limits, nic.parameters) == (NicLimits(in_average=10240, in_burst=512), {"vf": "3"})


def test_the_table_says_what_there_is_to_say(web: Web) -> None:
    assert web.nic("list", "web").out.split() == ["NETWORK", "MAC", "MODEL", "LINK", *["lan", MAC, "virtio", "up"]]
    web.nic("add", "web", "lan", "-l", "out_average=100", "-l", "out_burst=50", "-a", "10.0.0.5", "--no-wait")
    web.nic("remove", "web", MAC, "--no-wait")
    head, first, second = web.nic("list", "web").out.splitlines()
    assert head.split()[-3:] == ["ADDRESSES", "LIMITS", "STATE"]
    assert "being removed" in first
    assert "out average 100 KiB/s, out burst 50 KiB" in second
    # Two in one network are both shown.
    assert web.pvc("vm", "info", "web").out.count("lan ") >= 2
    assert [row["removing"] for row in web.nic("list", "web", "--format", "json").json()] == [True, False]


def test_a_nic_is_named_by_its_network_or_its_mac_address(web: Web) -> None:
    assert web.nic("modify", "web", "lan", "--link", "down", "--no-wait").status == 0
    assert not web.spec().nics[0].link_up
    assert web.nic("modify", "web", MAC.replace(":", "-"), "--link", "up", "--no-wait").status == 0
    assert web.spec().nics[0].link_up
    web.nic("add", "web", "lan", "--no-wait")
    ran = web.nic("remove", "web", "lan")
    assert ran.status != 0
    assert f"VM 'web' has 2 NICs in lan; give the MAC address, one of {MAC}, " in ran.err


def test_what_needs_a_restart_says_why_and_how(web: Web) -> None:
    ran = web.nic("modify", "web", "lan", "--model", "e1000", "--no-wait")
    assert ran.err == (
        f"VM web runs with the old settings (NIC {MAC} in network lan has other settings: model) until: "
        "pvc vm restart web\n"
    )
    assert web.nic("modify", "web", "lan", "--queues", "2", "--restart").status != 0  # e1000 has one
    answer = web.nic("modify", "web", "lan", "--model", "virtio", "--queues", "2", "-f", "json", "--no-wait").json()
    assert answer["restart_needed"]


def test_addresses_are_replaced_and_taken(web: Web) -> None:
    web.nic("modify", "web", "lan", "-a", "10.0.0.5", "--no-wait")
    web.nic("modify", "web", "lan", "-a", "10.0.0.6", "--no-wait")
    assert web.spec().nics[0].addresses == ("10.0.0.6",)
    web.nic("modify", "web", "lan", "-a", "", "--no-wait")
    assert web.spec().nics[0].addresses == ()


@pytest.mark.parametrize("reason", ["GuestKeepsNic", "PlugFailed", "ChangeFailed"])
def test_a_wait_ends_with_what_does_not_work(web: Web, reason: str) -> None:
    web.report(conditions=(Condition(type="Nics", ok=False, reason=reason, message="it is stuck"),))
    ran = web.nic("remove", "web", "lan")
    assert (ran.status, ran.err) == (1, "pvc: VM 'web': it is stuck\n")


def test_a_wait_does_not_mind_disks_and_goes_on_while_the_guest_may_still_let_go(web: Web) -> None:
    web.report(conditions=(Condition(type="Disks", ok=False, reason="GuestKeepsDisk", message="a disk"),))
    assert web.nic("add", "web", "dmz").status == 0
    web.report(conditions=(Condition(type="Nics", ok=False, reason="Unplugging", message="the guest was asked"),))
    ran = web.nic("remove", "web", "lan", "--timeout", "0.1s")
    assert ran.status == 1
    assert "not finished in time (still: running: the guest was asked)" in ran.err


def test_modify_of_the_vm_waits_for_the_nics_too(web: Web) -> None:
    web.report(conditions=(Condition(type="Nics", ok=False, reason="PlugFailed", message="no slot"),))
    ran = web.pvc("vm", "modify", "web", "--add-nic", "dmz,queues=2,link_up=false", "--yes")
    assert (ran.status, ran.err.splitlines()[-1]) == (1, "pvc: VM 'web': no slot")
    assert web.pvc("vm", "modify", "web", "--remove-nic", "dmz", "--yes", "--no-wait").out == "VM web is changed\n"
    assert [nic.removing for nic in web.spec().nics] == [False, True]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("add", "web", "lna"), "no network named 'lna'; did you mean 'lan'?"),
        (("add", "web", "lan", "--mac", "52:54:00"), "'52:54:00' is not a MAC address"),
        (("add", "web", "lan", "--mac", "01:00:00:00:00:01"), "multicast"),
        (("add", "web", "lan", "-l", "in_average"), "'in_average' is not of the form key=value"),
        (("add", "web", "lan", "-l", "in=5"), "a NIC has no limit 'in'"),
        (("add", "web", "lan", "-l", "in_peak=5"), "limit in_peak needs a limit in_average"),
        (("add", "web", "lan", "-a", "10.0.0.0/8"), "is not an IP address"),
        (("add", "web", "lan", "--queues", "8"), "has 8 queues, more than the VM has vCPUs (4)"),
        (("modify", "web", "lan"), "say what to change of the NIC"),
        (("modify", "web", "dmz", "--link", "up"), f"VM 'web' has no NIC dmz; it has {MAC} in lan"),
        (("remove", "web", "52:54:00:00:00:09"), "VM 'web' has no NIC 52:54:00:00:00:09"),
    ],
)
def test_what_is_refused_changes_nothing(web: Web, args: tuple[str, ...], said: str) -> None:
    before = web.spec()
    ran = web.nic(*args)
    assert ran.status in (1, 2)
    assert said in ran.err
    assert web.spec() == before
