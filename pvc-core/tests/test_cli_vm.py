"""VMs from the command line: define, change, list, dump; on a state tree in memory."""

import os
import stat
from pathlib import Path

import pytest
import yaml

from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_network, add_node

WEB = "name: web1\nmemory: 2G\nvcpus: 2\nnics: [{network: lan}]\ntags: [prod]\n"


@pytest.fixture
def tree() -> MemoryTree:
    return MemoryTree()


@pytest.fixture
def pvc(tree: MemoryTree) -> CommandLine:
    command = CommandLine(tree)
    add_node(tree, "node1")
    add_node(tree, "node2")
    add_network(tree, "lan")
    add_network(tree, "dmz")
    assert command("vm", "define", "-", input=WEB).status == 0
    return command


def spec(pvc: CommandLine, vm: str = "web1") -> dict[str, object]:
    found = pvc("vm", "info", vm, "--format", "json").json()
    assert isinstance(found, dict)
    return found["spec"]  # type: ignore[no-any-return]


def test_a_defined_vm_is_listed_in_every_format(pvc: CommandLine) -> None:
    table = pvc("vm", "list").out.splitlines()
    assert table[0].split() == ["NAME", "STATE", "NODE", "VCPUS", "MEMORY", "NETWORKS", "TAGS"]
    assert table[1].split() == ["web1", "stopped", "-", "2", "2", "GiB", "lan", "prod"]
    from_json = pvc("vm", "list", "--format", "json").json()
    assert from_json == pvc("--format", "json", "vm", "list").json()
    assert from_json == yaml.safe_load(pvc("vm", "list", "--format", "yaml").out)


def test_listing_takes_a_pattern_and_conditions(pvc: CommandLine) -> None:
    pvc("vm", "define", "-", input="name: db\nmemory: 1G\nnode: node2\n---\nname: web2\nmemory: 1G\n")

    def names(*args: str) -> list[str]:
        found = pvc("vm", "list", "--format", "json", *args).json()
        assert isinstance(found, list)
        return [vm["name"] for vm in found]

    assert names("^web") == ["web1", "web2"]
    assert names("--node", "node2") == ["db"]
    assert names("--tag", "prod") == ["web1"]
    assert names("--tag", "prod", "--negate") == ["db", "web2"]
    assert names("--state", "running") == []


def test_a_dump_defines_the_same_vm_again(pvc: CommandLine) -> None:
    dump = pvc("vm", "dump", "web1").out
    before = spec(pvc)
    assert pvc("vm", "remove", "web1", "--yes").status == 0
    assert pvc("vm", "define", "-", input=dump).status == 0
    assert spec(pvc) == before
    assert pvc("vm", "dump", "web1").out == dump


def test_a_dump_in_json_defines_too(pvc: CommandLine) -> None:
    dump = pvc("vm", "dump", "web1", "--format", "json").out
    assert pvc("vm", "remove", "web1", "--yes").status == 0
    assert pvc("vm", "define", "-", input=dump).status == 0


def test_priority_is_defined_shown_and_changed(pvc: CommandLine) -> None:
    assert spec(pvc)["priority"] == 0
    text = "name: db\nmemory: 1G\npriority: 5\n"
    assert pvc("vm", "define", "-", input=text).status == 0
    assert "priority: 5" in pvc("vm", "dump", "db").out
    assert pvc("vm", "define", "-", "--priority", "7", input=text.replace("db", "db2")).status == 0
    assert spec(pvc, "db2")["priority"] == 7
    assert pvc("vm", "modify", "db", "--priority", "-3").status == 0
    assert spec(pvc, "db")["priority"] == -3
    assert "Priority   -3" in pvc("vm", "info", "db").out
    assert "-1000<=x<=1000" in pvc("vm", "modify", "db", "--priority", "1001").err


def test_options_of_define_go_before_the_file(pvc: CommandLine) -> None:
    assert pvc(
        "vm", "define", "-", "--node", "node2", "--start", "--no-wait", input="name: a\nmemory: 1G\nnode: node1\n"
    )
    found = spec(pvc, "a")
    assert (found["node"], found["power"]) == ("node2", "running")


def test_modify_shows_the_difference_and_makes_it(pvc: CommandLine) -> None:
    ran = pvc("vm", "modify", "web1", "--set", "memory=3G", "--set", "description=the web", "--add-nic", "dmz")
    assert ran.status == 0
    assert ran.out == "VM web1 is changed\n"
    assert {"- memory_mib: 2048", "+ memory_mib: 3072", "+ - network: dmz"} <= set(ran.err.splitlines())
    found = spec(pvc)
    assert (found["memory_mib"], found["description"], len(found["nics"])) == (3072, "the web", 2)  # type: ignore[arg-type]


def test_the_mac_address_in_the_difference_is_the_one_that_is_written(pvc: CommandLine) -> None:
    ran = pvc("vm", "modify", "web1", "--add-nic", "dmz")
    mac = spec(pvc)["nics"][1]["mac"]  # type: ignore[index]
    written = "\n".join(line[1:] for line in ran.err.splitlines() if line.startswith("+"))
    # Some addresses are in quotes: without them they are numbers in base 60 to YAML 1.1.
    assert yaml.safe_load(written) == [{"network": "dmz", "mac": mac}]


def test_a_difference_shows_the_old_before_the_new(pvc: CommandLine) -> None:
    ran = pvc("vm", "modify", "web1", "--remove-nic", "lan", "--dry-run")
    marks = [line[0] for line in ran.err.splitlines()]
    assert marks == sorted(marks, key="-+".index)
    assert ran.err.splitlines()[0] == "- nics:"
    assert ran.err.splitlines()[-1] == "+ nics: []"


def test_a_dry_run_changes_nothing(pvc: CommandLine, tree: MemoryTree) -> None:
    before = tree.dump()
    ran = pvc("vm", "modify", "web1", "--set", "vcpus=4", "--dry-run")
    assert (ran.status, ran.out) == (0, "VM web1: nothing was changed (dry run)\n")
    assert "+ vcpus: 4" in ran.err
    assert tree.dump() == before


def test_a_change_to_what_it_is_already_changes_nothing(pvc: CommandLine, tree: MemoryTree) -> None:
    before = tree.dump()
    assert pvc("vm", "modify", "web1", "--set", "vcpus=2").out == "VM web1: nothing to change\n"
    assert tree.dump() == before


def test_a_whole_definition_replaces_the_old_one(pvc: CommandLine) -> None:
    assert pvc("vm", "modify", "web1", "-", input="name: web1\nmemory: 1G\n").status == 0
    found = spec(pvc)
    assert (found["memory_mib"], found["vcpus"], found["nics"]) == (1024, 1, [])


def editor(path: Path, script: str) -> str:
    """Return an editor that runs a shell script with the file as $1."""
    file = path / "editor"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_an_edited_definition_is_shown_confirmed_and_made(
    pvc: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", editor(tmp_path, "sed -i 's/^memory: .*/memory: 4G/' $1"))
    ran = pvc("vm", "modify", "web1", "--edit", input="y\n", interactive=True)
    assert ran.status == 0, ran.err
    assert "+ memory_mib: 4096" in ran.err
    assert spec(pvc)["memory_mib"] == 4096


def test_a_mistake_in_the_editor_can_be_repaired(
    pvc: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The editor gets the faulty text back; the second time it repairs it."""
    monkeypatch.delenv("VISUAL", raising=False)
    script = "if grep -q memry $1; then sed -i 's/^memry/memory/' $1; else sed -i 's/^memory: .*/memry: 4G/' $1; fi"
    monkeypatch.setenv("EDITOR", editor(tmp_path, script))
    ran = pvc("vm", "modify", "web1", "--edit", input="y\ny\n", interactive=True)
    assert ran.status == 0, ran.err
    assert "did you mean 'memory'?" in ran.err
    assert spec(pvc)["memory_mib"] == 4096


def test_an_editor_that_changes_nothing_changes_nothing(
    pvc: CommandLine, tree: MemoryTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "true")
    before = tree.dump()
    assert pvc("vm", "modify", "web1", "--edit", interactive=True).out == "VM web1: nothing to change\n"
    assert tree.dump() == before


def test_small_changes_answer_with_what_is_now(pvc: CommandLine) -> None:
    assert pvc("vm", "autostart", "web1", "on").out == "autostart of VM web1 is on\n"
    assert pvc("vm", "autostart", "web1").out == "autostart of VM web1 is on\n"
    assert pvc("vm", "tag", "web1", "--add", "blue", "--remove", "prod").out == "tags of VM web1: blue\n"
    assert pvc("vm", "rename", "web1", "www").out == "VM web1 is now www\n"
    assert pvc("vm", "info", "web1").status == 1


def test_without_waiting_the_answer_is_what_was_asked_for(pvc: CommandLine) -> None:
    assert pvc("vm", "start", "web1", "--node", "node1", "--no-wait").out == "VM web1 will be started on node1\n"
    found = pvc("vm", "shutdown", "web1", "--no-wait", "--format", "json").json()
    assert isinstance(found, dict)
    assert found["message"] == "VM web1 will be shut down"
    assert found["vm"]["power"] == "stopped"


def test_libvirt_xml_is_detected(pvc: CommandLine) -> None:
    xml = "<domain type='kvm'><name>x</name><memory unit='GiB'>1</memory><vcpu>2</vcpu></domain>"
    assert pvc("vm", "define", "-", input=xml).out == "VM x is defined\n"
    assert spec(pvc, "x")["memory_mib"] == 1024


def test_a_named_file_is_read(pvc: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "vm.yml"
    file.write_text("name: filed\nmemory: 1G\n")
    assert pvc("vm", "define", os.fspath(file)).status == 0


def test_disabled_vms_say_so(pvc: CommandLine) -> None:
    assert pvc("vm", "disable", "web1", "--no-wait").status == 0
    assert spec(pvc)["power"] == "disabled"
