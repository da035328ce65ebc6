"""What is installed, and what it says about itself, without any driver being imported."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from stevedore import ExtensionManager

from pvc_core.model.errors import InvalidRequest
from pvc_core.runtime.discover import GROUPS, PluginFailure, discover
from pvc_core.runtime.load import seed_stevedore
from pvc_core.runtime.manifests import contain, describe, manifests, validator
from pvc_core.runtime.scan import scan
from pvc_core.testkit.distributions import Site


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def mine(site: Site):
    return {i.name: i for i in manifests() if i.entry.value.startswith("plug_")}


def test_manifests_of_all_installed_plugins_are_read_and_nothing_else(site):
    site.plugin("a")
    site.plugin("b", manifest="commands=(CommandSpec(name='b', target='plug_b.cli:b', help='Do.'),),")
    found = mine(site)
    assert list(found) == ["a", "b"]
    assert found["a"].manifest.network == ("a",)
    assert found["b"].manifest.commands[0].target == "plug_b.cli:b"
    assert found["a"].distribution == "pvc-a 1.0"
    assert "plug_a.driver" not in sys.modules


def test_a_broken_manifest_costs_only_its_plugin(site):
    site.plugin("a")
    site.plugin("bad")
    site.module("plug_bad.manifest", "import sys; sys.exit('no')")
    found = mine(site)
    assert found["a"].manifest is not None
    assert found["bad"].manifest is None
    assert found["bad"].error == f"it called sys.exit('no') ({site.directory}/plug_bad/manifest.py:1)"


def test_of_two_distributions_with_one_name_neither_is_taken(site):
    site.plugin("twin")
    site.distribution("pvc-other", {"pvc.plugin": {"twin": "plug_other:M"}})
    found = mine(site)["twin"]
    assert found.manifest is None
    assert "pvc-other 1.0 (plug_other:M) and pvc-twin 1.0 (plug_twin.manifest:MANIFEST)" in found.error


def test_a_distribution_that_is_on_the_path_twice_counts_once(site, tmp_path_factory):
    site.plugin("a")
    with Site(tmp_path_factory.mktemp("shadow")) as shadow:
        shadow.plugin("a")
        assert discover().find("pvc.plugin", "a").value == "plug_a.manifest:MANIFEST"


def test_a_distribution_without_entry_points_or_metadata_does_no_harm(site):
    (site.directory / "odd-1.dist-info").mkdir()
    (site.directory / "empty-1.dist-info").mkdir()
    (site.directory / "empty-1.dist-info" / "entry_points.txt").write_text("")
    site.plugin("a")
    assert "a" in mine(site)


def test_scanning_finds_what_importlib_finds(site, tmp_path_factory):
    site.plugin("a")
    site.distribution("pvc-odd.name", {"pvc.plugin": {"odd": "plug_odd.manifest : MANIFEST.inner [extra]"}})
    info = site.directory / "pvc_odd.name-1.0.dist-info" / "entry_points.txt"
    info.write_text(
        "# a comment\n[console_scripts]\nodd = x:y\n\n" + info.read_text() + "# another = one:x\n[other]\nb=c:d\n"
    )
    with Site(tmp_path_factory.mktemp("shadow")) as shadow:
        shadow.plugin("a")
        for group in GROUPS:
            scanned = {(e.name, e.module, e.dist.name, e.dist.version) for e in scan(group)}
            assert scanned == {(e.name, e.module, e.dist.name, e.dist.version) for e in discover().groups[group]}
        assert {e.name for e in scan("pvc.plugin")} >= {"a", "odd"}


def test_scanning_loads_attributes_of_attributes(site):
    site.module("plug_odd", "class Holder:\n    inner = 3\n")
    site.distribution("pvc-odd", {"pvc.plugin": {"odd": "plug_odd:Holder.inner"}})
    [entry] = [entry for entry in scan("pvc.plugin") if entry.name == "odd"]
    assert entry.load() == 3


def test_a_name_that_is_missing_is_told_with_what_is_there(site):
    site.plugin("alpha")
    with pytest.raises(PluginFailure, match=r"no distribution offers a plugin named 'alhpa'; did you mean 'alpha'\?"):
        discover().find("pvc.plugin", "alhpa")
    with pytest.raises(PluginFailure, match=r"network entry point named 'zzz'; installed: .*alpha"):
        discover().find("pvc.network", "zzz")


def test_stevedore_sees_what_we_saw(site):
    site.plugin("a")
    seed_stevedore(discover())
    entries = ExtensionManager.ENTRY_POINT_CACHE["pvc.network"]
    assert any(entry.dist is not None and entry.dist.name == "pvc-a" for entry in entries)


def test_validators_are_found_by_driver_name(site):
    site.plugin("a", manifest="validators={'a': 'plug_a.check:check'},")
    site.module(
        "plug_a.check",
        "from pvc_core.model.errors import InvalidRequest\ndef check(spec):\n    raise InvalidRequest(spec)\n",
    )
    check = validator("a")
    assert check is not None
    with pytest.raises(InvalidRequest, match="mtu"):
        check("mtu")
    assert validator("b") is None
    assert "plug_a.driver" not in sys.modules


def test_a_validator_that_cannot_be_imported_is_an_error(site):
    site.plugin("a", manifest="validators={'a': 'plug_a.nothing:check'},")
    with pytest.raises(PluginFailure, match=r"plug_a\.nothing"):
        validator("a")


def test_keyboard_interrupt_goes_through():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contain("import", interrupted)


def test_an_exception_without_text_is_named():
    assert describe(ValueError()) == "ValueError"
    assert describe(ValueError("first\nsecond")) == "ValueError: first"


def test_reading_manifests_imports_neither_pluggy_nor_stevedore_nor_specifications(site):
    site.plugin("a")
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            """
import sys, json
sys.path.insert(0, sys.argv[1])
from pvc_core.runtime.manifests import manifests
assert any(i.name == 'a' and i.manifest for i in manifests())
print(json.dumps(sorted(sys.modules)))
""",
            str(site.directory),
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    loaded = set(json.loads(said.stdout))
    assert not loaded & {
        "pluggy",
        "stevedore",
        "importlib.metadata",
        "click",
        "kazoo",
        "libvirt",
        "yaml",
        "pvc_core.plugin.specs.storage",
        "pvc_core.plugin.config",
        "pvc_core.plugin.process",
        "plug_a.driver",
    }
