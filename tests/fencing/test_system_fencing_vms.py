"""What becomes of each VM of a lost node."""

import pytest
import yaml

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture
def full(lab3):
    """Fill all nodes but the one that is returned, so that no large VM finds room."""
    lab = lab3
    victim = lab.others(lab.primary())[0]
    fillers = {f"filler-{node}": node for node in lab.others(victim)}
    file = lab.sandbox.shared / "fillers.yml"
    vms = [{"name": vm, "memory": "1G", "node": node, "start": True} for vm, node in fillers.items()]
    file.write_text(yaml.safe_dump_all(vms))
    lab.pvc("vm", "define", str(file))
    yield victim
    for vm in {*fillers, "large", "stopping", "fragile"} & lab.cluster.names():
        lab.pvc("vm", "remove", vm, "--force", "--volumes", "--yes")


def test_only_vms_that_should_run_are_started_again_and_those_without_room_when_there_is_some(lab3, full):
    lab, victim = lab3, full
    witness, large = lab.guest(victim), lab.new_guest(victim, "large", memory="1G")
    stopping, fragile = lab.new_guest(victim, "stopping"), lab.new_guest(victim, "fragile", restart="never")
    lab.pvc("vm", "shutdown", "stopping", "--no-wait")  # it is deaf to that
    before = {guest.name: len(guest.lives()) for guest in (witness, large, stopping, fragile)}
    lab.sandbox.power_cut(victim)
    lab.moved(witness, away_from=victim)
    record = lab.until(victim, "recovered")
    # Guests of earlier tests may have been on it too.
    assert {vm.name: vm.outcome for vm in record.vms if vm.name in before} == {
        "witness": "freed", "large": "freed", "stopping": "not-restarted", "fragile": "not-restarted",
    }  # fmt: skip
    waits = lab.eventually("the large one waits", lambda: (v := lab.cluster.view("large"))["state"] == "waiting" and v)
    assert "no node can take it" in waits["reason"]
    assert {lab.cluster.place(vm) for vm in ("stopping", "fragile")} == {("stopped", None)}
    room = lab.others(victim)[0]
    lab.pvc("vm", "stop", f"filler-{room}", "--yes")
    assert lab.moved(large, away_from=victim) == room
    after = {guest.name: len(guest.lives()) - before[guest.name] for guest in (witness, large, stopping, fragile)}
    assert after == {"witness": 1, "large": 1, "stopping": 0, "fragile": 0}
    lab.bring_back(victim)
