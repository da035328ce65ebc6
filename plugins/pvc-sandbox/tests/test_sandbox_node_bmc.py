"""The BMC of a simulated node, asked with ipmitool from another node."""

import os
import signal

import pytest

from pvc_sandbox import links
from pvc_sandbox.control import NoAnswer
from pvc_sandbox.host import Host
from pvc_sandbox.node_bmc import NodeBmc, password_file
from pvc_sandbox.records import living
from pvc_sandbox.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("bmcs")
    yield path
    layout = Host(path, 1).layout
    for number in (1, 2):
        NodeBmc(layout, number).remove()
        Host(layout, number).destroy()
    password_file(layout).unlink()
    assert not links.switch_exists(layout)
    assert not layout.run.exists()
    assert list(path.iterdir()) == []


@pytest.fixture
def asker(directory):
    made = Host(directory, 1)
    made.start()
    return made


@pytest.fixture
def host(asker):
    made = Host(asker.layout, 2)
    made.start()
    return made


@pytest.fixture
def bmc(host):
    made = NodeBmc(host.layout, 2)
    made.mend()
    return made


def ask(asker, bmc, command, tries=8):
    """Run ``ipmitool chassis power ...`` on a host; each try waits 1 s for what takes the BMC 0.2 s."""
    parameters = bmc.fence_parameters()
    argv = ["ipmitool", "-I", "lanplus", "-C", parameters["cipher_suite"], "-L", parameters["privilege"], "-N", "1"]
    argv += ["-R", str(tries), "-H", parameters["address"], "-p", parameters["port"], "-U", parameters["user"]]
    argv += ["-f", parameters["password_file"], "chassis", "power", command]
    return asker.exec(argv)


def reads(asker, bmc, state):
    return ask(asker, bmc, "status").stdout == f"Chassis Power is {state}\n"


def switched(asker, bmc, state):
    ask(asker, bmc, state).check()
    wait_until(f"the BMC reads {state}", lambda: reads(asker, bmc, state), deadline_s=10)


def has_libvirtd(host):
    """Whether it runs; a host whose button was pressed by its BMC is on before it has daemons, or can be asked for them."""
    try:
        state = host.services().get("libvirtd")
    except NoAnswer:
        return False
    return state is not None and state.pid


def test_power_is_cut_and_restored_over_the_network_from_another_node(asker, host, bmc):
    assert reads(asker, bmc, "on")
    before = host.power
    switched(asker, bmc, "off")
    assert not host.running
    assert links.carriers(host.layout).keys() == {"hv1", "hv1-guest", "hv1-mgmt", "hv1-up"}
    switched(asker, bmc, "on")
    assert host.power not in (None, before)
    wait_until("its daemons run", lambda: has_libvirtd(host), deadline_s=30)
    assert bmc.received()[-2:] == ["power=0", "power=1"]


def test_what_the_sandbox_does_to_the_power_the_bmc_reads(asker, host, bmc):
    host.power_cut()
    assert reads(asker, bmc, "off")
    host.start()
    assert reads(asker, bmc, "on")


def test_frozen_node_is_switched_off_and_thawed_too_late(asker, host, bmc):
    host.freeze()
    assert reads(asker, bmc, "on")
    switched(asker, bmc, "off")
    host.thaw()
    assert not host.running
    switched(asker, bmc, "on")
    host.thaw()


def test_node_without_cables_is_switched_off_and_stays_without_them(asker, host, bmc):
    host.cut_link(links.NETWORKS)
    switched(asker, bmc, "off")
    switched(asker, bmc, "on")
    wait_until("it is connected", lambda: len(links.carriers(host.layout)) == 8, deadline_s=10)
    pulled = {port for port, up in links.carriers(host.layout).items() if not up}
    assert pulled == {"hv2", "hv2-guest", "hv2-mgmt", "hv2-up"}


def test_node_without_cables_reaches_the_bmcs_unless_that_one_is_pulled_too(asker, host, bmc):
    own = NodeBmc(asker.layout, 1)
    own.mend()
    host.cut_link()
    assert reads(host, own, "on")
    host.cut_link([links.MANAGEMENT])
    assert ask(host, own, "status", tries=1).returncode != 0
    own.remove()
    assert not own.exists


def test_dead_bmc_is_not_there_until_it_is_mended(asker, host, bmc):
    bmc.dead()
    assert bmc.faults() == ("dead",)
    bmc.power_on()
    assert ask(asker, bmc, "status", tries=1).returncode != 0
    assert host.running
    bmc.mend()
    assert bmc.faults() == ()
    assert reads(asker, bmc, "on")


def test_bmc_without_power_is_not_there_until_it_has_power(asker, bmc):
    bmc.power_cut()
    assert bmc.faults() == ("off",)
    assert ask(asker, bmc, "status", tries=1).returncode != 0
    bmc.power_on()
    assert reads(asker, bmc, "on")


def test_hanging_bmc_hangs_until_it_is_mended(asker, bmc):
    bmc.hang()
    bmc.power_on()
    assert bmc.faults() == ("hangs",)
    assert ask(asker, bmc, "status", tries=1).returncode != 0
    bmc.mend()
    assert reads(asker, bmc, "on")


def test_stuck_and_slow_bmc_says_yes(asker, host, bmc):
    bmc.stuck()
    ask(asker, bmc, "off").check()
    assert reads(asker, bmc, "on")
    bmc.mend()
    bmc.slow(0.5)
    assert bmc.faults() == ("slow (0.5 s)",)
    ask(asker, bmc, "off").check()
    assert host.running
    wait_until("it has done it", lambda: not host.running, deadline_s=10)


def test_bmc_with_another_password_refuses_the_cluster(asker, bmc):
    bmc.change_password()
    assert bmc.faults() == ("other password",)
    assert ask(asker, bmc, "status", tries=1).returncode != 0
    bmc.mend()
    assert reads(asker, bmc, "on")


def test_killed_bmc_comes_back_when_it_gets_power(asker, bmc):
    os.kill(living(bmc.log().parent / "bmc.pid").pid, signal.SIGKILL)
    wait_until("it is gone", lambda: bmc.faults() == ("off",), deadline_s=5)
    bmc.power_on()
    assert reads(asker, bmc, "on")


def test_removed_bmc_switches_nothing_on_any_more(host, bmc, asker):
    host.power_cut()
    bmc.slow(600)
    ask(asker, bmc, "on").check()
    bmc.remove()
    bmc.remove()
    assert not bmc.exists
    assert not host.running
    assert ask(asker, bmc, "status", tries=1).returncode != 0
