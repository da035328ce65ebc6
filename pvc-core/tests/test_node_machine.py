"""A node's name and the machine that has it: another one gets it only when nothing of the first can run any more."""

import pytest

from pvc_core.model.errors import InUse
from pvc_core.model.fence import FenceStage
from pvc_core.node.machine import machine_word
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import node_remove
from pvc_core.plugin.errors import ConfigError
from pvc_core.store import keys
from pvc_core.testkit.fence_site import ClosableSite, FenceSite


def test_a_machine_keeps_the_word_that_was_made_for_it(tmp_path):
    word = machine_word(tmp_path)
    assert machine_word(tmp_path) == word
    (tmp_path / "other").mkdir()
    assert machine_word(tmp_path / "other") != word
    (tmp_path / "machine").write_text("half a wo")
    with pytest.raises(ConfigError, match="is damaged; if this machine is the one that had this node's name"):
        machine_word(tmp_path)
    with pytest.raises(ConfigError, match="cannot read or write"):
        machine_word(tmp_path / "nowhere")


@pytest.fixture
def site():
    return FenceSite()


def holder(site):
    lease = site.read(keys.lease("hv3"))
    return lease.holder.partition("-")[0] if lease is not None else ""


def test_another_machine_of_a_name_does_not_take_over_what_may_still_run_on_the_first(site, caplog):
    vm = site.vm("web")
    site.power.silent.add("hv3")
    site.other_machine("hv3", "new")
    site.cluster.run(60)
    site.isolated("hv3")
    site.cluster.run(60)
    assert (site.running(vm), holder(site), site.stage()) == (["hv3"], "", FenceStage.FENCING)
    assert (
        "node hv3 was another machine until now (lease 1); this one gets the name when that one is proven"
        in caplog.text
    )


def test_another_machine_gets_the_name_of_one_that_is_proven_dead_and_then_the_first_does_not(site):
    vm = site.vm("web")
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    site.other_machine("hv3", "new")
    site.until(lambda: site.stage() is FenceStage.RETURNED)
    assert holder(site) == "new"
    site.cluster.nodes["hv3"].start()
    site.cluster.run(60)
    site.cluster.nodes["new"].kill()
    site.cluster.nodes["new"].store.expire()
    site.power.silent.add("hv3")
    site.cluster.run(60)
    assert holder(site) == ""
    assert site.running(vm) == ["hv1"] or site.running(vm) == ["hv2"]


def test_storage_that_is_closed_to_a_machine_is_not_opened_because_another_of_its_name_is_clean():
    site = ClosableSite()
    vm = site.vm_on("a", "shared")
    site.isolated("hv3")
    site.until(lambda: len(site.running(vm)) == 2)
    site.other_machine("hv3", "new")
    site.cluster.run(120)
    assert (holder(site), site.backend.blocked) == ("", {"hv3"})
    with pytest.raises(InUse, match="storage is closed to node hv3, which may still run guests"):
        node_remove(site.cluster.ops, NodeQuery(node="hv3"))
    site.dies("hv3")
    site.confirmed("hv3")
    site.until(lambda: holder(site) == "new")
    site.until(lambda: not site.backend.blocked)
    assert len(site.running(vm)) == 1


def test_another_machine_gets_the_name_of_one_that_was_emptied_and_stopped(site):
    vm = site.vm("web")
    hv3 = site.cluster.nodes["hv3"]
    assert hv3.agent.lease.release()
    hv3.kill()
    site.other_machine("hv3", "new")
    site.cluster.run(60)
    assert (holder(site), site.running(vm)) == ("", ["hv3"])
    hv3.start()
    site.change(keys.vm_spec(vm), node="hv1", move_method="live")
    site.until(lambda: site.running(vm) == ["hv1"] and site.read(keys.claim(vm)).node == "hv1")
    assert hv3.agent.lease.release()
    hv3.kill()
    site.until(lambda: holder(site) == "new")


def test_any_machine_gets_the_name_of_a_node_that_was_removed(site):
    hv3 = site.cluster.nodes["hv3"]
    site.lost("hv3")
    site.until(lambda: site.stage() is FenceStage.RECOVERED)
    node_remove(site.cluster.ops, NodeQuery(node="hv3"))
    site.other_machine("hv3", "new")
    site.until(lambda: holder(site) == "new")
    assert not hv3.running
    assert site.read(keys.generation("hv3")).machine == "new"
