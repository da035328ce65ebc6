"""Names, addresses and their reservation."""

import shutil
from ipaddress import ip_address, ip_network

import pytest

from pvc_sandbox import layout as layouts
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.layout import Layout, claim_layout, default_name, find_layout, forget_empty_directories, sandboxes


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(layouts, "STATE_ROOT", tmp_path / "state")
    return tmp_path


def test_same_directory_gets_same_layout_again(machine):
    assert claim_layout(machine / "state/a", "a") == claim_layout(machine / "state/a")


def test_two_sandboxes_share_no_name_address_or_path(machine):
    first, second = claim_layout(machine / "x", "a"), claim_layout(machine / "y", "b")
    assert first.cluster_address(1) != second.cluster_address(1)
    assert first.cluster_address6(1) != second.cluster_address6(1)
    assert first.guest_address(1) != second.guest_address(1)
    assert first.upstream_address(1) != second.upstream_address(1)
    assert first.upstream_address6(1) != second.upstream_address6(1)
    assert first.router != second.router
    assert first.mac(1, 0) != second.mac(1, 0)
    assert first.switch != second.switch
    assert first.node_run(1) != second.node_run(1)


@pytest.mark.parametrize("index", [0, 7, 250])
def test_addresses_are_in_their_networks_and_written_as_the_kernel_writes_them(index):
    layout = Layout(name="t", index=index, state="/s")
    for network, address in (
        (layout.cluster_network, layout.cluster_address),
        (layout.cluster_network6, layout.cluster_address6),
        (layout.upstream_network, layout.upstream_address),
        (layout.upstream_network6, layout.upstream_address6),
    ):
        found = [address(host) for host in (1, 12, 99, 250, 254)]
        assert [str(ip_address(each)) for each in found] == found
        assert all(ip_address(each) in ip_network(network) for each in found)
        assert len({*found}) == 5


def test_ipv6_address_has_the_number_of_the_other():
    layout = Layout(name="t", index=250, state="/s")
    assert (layout.cluster_address(12), layout.cluster_address6(12)) == ("10.77.250.12", "fd77:0:0:fa::c")
    assert layout.upstream_address6(1) == "fd80:0:0:fa::1"


def test_name_of_another_directory_is_refused(machine):
    claim_layout(machine / "x", "a")
    with pytest.raises(SandboxError, match=f"exists already in {machine}/x"):
        claim_layout(machine / "y", "a")


def test_name_of_a_deleted_directory_is_free_again(machine):
    claim_layout(machine / "x", "a")
    shutil.rmtree(machine / "x")
    assert claim_layout(machine / "y", "a").index == 0


def test_directory_keeps_its_one_name(machine):
    claim_layout(machine / "x", "a")
    with pytest.raises(SandboxError, match="holds the sandbox 'a', not 'b'"):
        claim_layout(machine / "x", "b")


def test_network_is_kept_over_a_reboot_unless_taken_meanwhile(machine):
    claim_layout(machine / "x", "a")
    second = claim_layout(machine / "y", "b")
    shutil.rmtree(machine / "run")  # as a reboot does
    assert claim_layout(machine / "y").index == second.index
    claim_layout(machine / "z", "c")
    assert claim_layout(machine / "x").index not in {second.index, find_layout("c").index}


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 40, "a/b", "a.b", "a\n"])
def test_bad_name_is_refused(machine, name):
    with pytest.raises(SandboxError, match="not valid") if name else pytest.raises(SandboxError):
        claim_layout(machine / "x", name or "..")


def test_directory_with_other_things_is_refused_because_it_would_be_removed(machine):
    (machine / "home").mkdir()
    (machine / "home/letter").write_text("dear")
    with pytest.raises(SandboxError, match="is not empty"):
        claim_layout(machine / "home", "a")
    (machine / "home/letter").unlink()
    (machine / "home/.sandbox.json.killed").write_text("{")  # of a process that was killed while it claimed
    assert claim_layout(machine / "home", "a").name == "a"


def test_file_instead_of_a_directory_is_refused(machine):
    (machine / "file").write_text("")
    with pytest.raises(SandboxError, match="cannot be read"):
        claim_layout(machine / "file", "a")


@pytest.mark.parametrize("place", ["/run/x", "/dev/shm/x", "/var/run/x"])
def test_directory_that_nodes_would_not_see_is_refused(place):
    with pytest.raises(SandboxError, match="every node has a"):
        claim_layout(layouts.Path(place), "a")


def test_directories_of_the_same_name_get_different_names(machine):
    assert default_name(machine / "p/sb") != default_name(machine / "q/sb")


def test_listing_and_forgetting(machine):
    claim_layout(machine / "y", "b")
    claim_layout(machine / "x", "a")
    assert [layout.name for layout in sandboxes()] == ["a", "b"]
    for place in ("run/a", "run/b"):
        shutil.rmtree(machine / place)
    forget_empty_directories()
    assert not (machine / "run").exists()


def test_damaged_record_is_told(machine):
    claim_layout(machine / "x", "a")
    (machine / "x/sandbox.json").write_text("{")
    with pytest.raises(SandboxError, match="cannot be read"):
        claim_layout(machine / "x")


@pytest.mark.parametrize("node", ["hv0", "hv", "hv100", "node1", "hv01", "../hv1"])
def test_what_is_no_node_is_refused(machine, node):
    with pytest.raises(SandboxError, match="not a node"):
        claim_layout(machine / "x", "a").node_number(node)
