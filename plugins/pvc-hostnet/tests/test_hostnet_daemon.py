"""The plugin as the daemon loads and calls it: by its entry points, in threads with deadlines."""

import pytest

from pvc_core.config.load import load_node_config, node_info
from pvc_core.runtime.start import load_plugins

pytestmark = pytest.mark.real

FILE = """
cluster:
  name: one
  coordinators: [{{name: node7, address: 10.0.0.7}}]
node: {{name: node7, address: {address}, state_directory: {place}, run_directory: {place}}}
plugins:
  hostnet:
    cluster: {{device: eth0, addresses: [10.0.0.0/24, "fd00:1::/64"], floating: ["fd00:1::fe/64", 10.0.0.254/24]}}
    storage: {{same_as: cluster}}
"""
OWN = ["10.0.0.7/24", "fd00:1::7/64"]
FLOATING = ["10.0.0.254/32", "fd00:1::fe/128"]


@pytest.fixture
def registry(node, tmp_path):
    path = tmp_path / "pvcnoded.yml"
    path.write_text(FILE.format(address="10.0.0.7", place=tmp_path))
    config = load_node_config(str(path), {})
    with node.inside():  # its threads too: one begins with its first call
        loaded = load_plugins(config, node_info(config), lambda *_: None, preflight_every_s=None)
    yield loaded
    with node.inside():
        loaded.notify_and_wait("node_stopping", node="node7")
    loaded.close()


def test_a_daemons_life(registry, node):
    assert [(p.name, p.state) for p in registry.status()] == [("hostnet", "healthy")]
    with node.inside():
        registry.notify_and_wait("node_starting", node="node7")
        assert node.addresses() == OWN
        ((service,),) = registry.collect("role_services")
        assert (service.name, service.order) == ("floating-addresses", 0)
        service.acquire(1)
        assert node.addresses() == sorted([*OWN, *FLOATING])
        (conditions,) = registry.collect("health_checks")
        assert [(c.type, c.ok) for c in conditions] == [("Network/cluster", True), ("Network/storage", True)]
        (queries,) = registry.collect("queries")
        assert queries["hostnet.status"]({})["primary"] is True
        service.relinquish()
        registry.notify_and_wait("node_stopping", node="node7")
    assert node.addresses() == OWN
    assert [(p.name, p.state) for p in registry.status()] == [("hostnet", "healthy")]


def test_a_section_that_does_not_fit_the_node_is_told_and_the_daemon_goes_on(node, tmp_path):
    path = tmp_path / "pvcnoded.yml"
    path.write_text(FILE.format(address="10.0.0.7", place=tmp_path).replace("10.0.0.254/24", "10.0.0.7"))
    config = load_node_config(str(path), {})
    loaded = load_plugins(config, node_info(config), lambda *_: None, preflight_every_s=None)
    (found,) = loaded.status()
    loaded.close()
    assert found.state == "failed"
    assert "plugins.hostnet.cluster.floating[1]: 10.0.0.7 is this node's own address" in found.error
