"""Maintenance and the settings of recovery on the command line."""

import pytest

from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node


@pytest.fixture
def pvc() -> CommandLine:
    tree = MemoryTree()
    command = CommandLine(tree)
    add_node(tree, "hv1")
    return command


@pytest.mark.parametrize("what", [("cluster", "maintenance"), ("node", "maintenance", "hv1")], ids=" ".join)
def test_maintenance_is_switched_for_a_time_and_shown(pvc: CommandLine, what: tuple[str, ...]) -> None:
    assert " is on until " in pvc(*what, "on", "--for", "2h").out
    assert " is on until " in pvc(*what).out
    assert pvc(*what, "on").out.endswith(" is on\n")
    assert pvc(*what, "off").out.endswith(" is off\n")
    for wrong in (("off", "--for", "2h"), ("--for", "2h"), ("on", "--for", "0"), ("on", "--for", "soon")):
        assert pvc(*what, *wrong).status == 2
    assert pvc(*what).out.endswith(" is off\n")


def test_the_end_of_a_maintenance_is_in_the_overview(pvc: CommandLine) -> None:
    pvc("cluster", "maintenance", "on", "--for", "1d")
    pvc("node", "maintenance", "hv1", "on", "--for", "30m")
    for command in (("cluster", "status"), ("cluster", "settings"), ("node", "info", "hv1")):
        assert "on until" in pvc(*command).out
    assert pvc("node", "list", "--format", "json").json()[0]["maintenance_until"] > 0


def test_means_of_recovery_are_set_and_shown(pvc: CommandLine) -> None:
    shown = pvc("cluster", "settings", "--recovery", "watchdog,power", "--power-on-after-fence").out.splitlines()
    assert "Recovery after         watchdog, power" in shown
    assert "Power on after fence   yes" in shown
    found = pvc("cluster", "settings", "--recovery", "none", "--format", "json").json()
    assert (found["recovery"], found["power_on_after_fence"]) == ([], True)
    refused = pvc("cluster", "settings", "--recovery", "powr")
    assert refused.status == 2
    assert "'powr' is no means of recovery; there are power, storage, watchdog, or none" in refused.err
    assert "power is given 2 times" in pvc("cluster", "settings", "--recovery", "power,power").err
