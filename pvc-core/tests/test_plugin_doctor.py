"""The doctor: one test for what each rule objects to, and a plugin without findings."""

from collections.abc import Iterator

import pytest

from pvc_core.runtime.doctor import RULES, Finding, examine
from pvc_core.testkit.distributions import Site


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def only(findings: list[Finding], rule: str) -> str:
    """Return the messages of a rule, which must be the only one that objects."""
    assert {finding.rule for finding in findings} == {rule}, findings
    return "\n".join(finding.message for finding in findings)


def test_a_good_plugin_has_no_findings(site):
    site.plugin("good")
    assert examine("good") == []


def test_rules_have_levels():
    assert {level for level, _ in RULES.values()} == {"error", "warning"}


def test_not_installed():
    assert "no distribution offers a plugin named 'nowhere'" in only(examine("nowhere"), "manifest")


def test_another_hook_api(site):
    site.plugin("a", api="(9, 0)")
    assert "hook API 9.0" in only(examine("a"), "hook-api")


def test_two_distributions(site):
    site.plugin("a")
    site.distribution("pvc-b", {"pvc.network": {"a": "x:Y"}})
    assert "offered more than once" in only(examine("a"), "entry-points")


def test_driver_that_cannot_be_imported(site):
    site.plugin("a", "import no_such_library")
    assert "no_such_library" in only(examine("a"), "driver-import")


def test_two_plugins_in_one_distribution(site):
    site.plugin("a")
    (site.directory / "pvc_a-1.0.dist-info" / "entry_points.txt").write_text(
        "[pvc.plugin]\na = plug_a.manifest:MANIFEST\nb = plug_b:MANIFEST\n[pvc.network]\na = plug_a.driver:Driver\n"
    )
    assert "offers 2 plugins (a, b)" in only(examine("a"), "one-manifest")


def test_odd_distribution_name(site):
    site.plugin("a")
    metadata = site.directory / "pvc_a-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Name: pvc-a", "Name: acme-a"))
    assert "'acme-a': expected 'pvc-a'" in only(examine("a"), "distribution-name")


def test_entry_point_that_the_manifest_does_not_name(site):
    site.plugin("a", manifest="network=(),")
    assert "pvc.network 'a' is not named" in only(examine("a"), "all-offered")


def test_heavy_manifest(site):
    site.plugin("a")
    manifest = site.directory / "plug_a" / "manifest.py"
    manifest.write_text("import plug_a.driver, yaml\n" + manifest.read_text())
    message = only(examine("a"), "light-manifest")
    assert "which `pvc --help` does, imports" in message
    assert "pluggy" in message


def test_manifest_that_imports_only_beside_other_modules(site):
    site.plugin("a")
    manifest = site.directory / "plug_a" / "manifest.py"
    manifest.write_text("import sys\nassert 'pytest' in sys.modules\n" + manifest.read_text())
    assert "importing plug_a.manifest alone fails" in only(examine("a"), "light-manifest")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Driver:\n    pass", "not derived from NetworkDriver"),
        ("class Driver(NetworkDriver):\n    pass", "lacks mandatory hooks: network_capabilities,"),
        (
            """
            class Driver(Driver):
                def network_remove(self, network: NetworkSpec, colour: str) -> bool:
                    return True
            """,
            "colour",
        ),
        (
            """
            from pvc_core.plugin import hookimpl
            class Driver(Driver):
                @hookimpl
                def vm_begun(self, vm: str) -> None: ...
            """,
            "unknown hook 'vm_begun'",
        ),
        (
            """
            from pvc_core.plugin import hookimpl
            class Driver(Driver):
                @hookimpl(wrapper=True)
                def vm_started(self, vm: str) -> None:
                    yield
            """,
            "may not wrap hooks",
        ),
    ],
)
def test_hooks(site, source, says):
    site.plugin("a", source)
    assert says in only(examine("a"), "hooks")


def test_constructors_are_not_run(site):
    site.plugin("a", "class Driver(Driver):\n    def __init__(self, context, config):\n        raise SystemExit(1)")
    assert examine("a") == []


def test_annotations_that_differ_or_are_missing(site):
    site.plugin(
        "a",
        """
        class Driver(Driver):
            def network_remove(self, network: str) -> bool:
                return True
            def network_list(self):
                return []
        """,
    )
    message = only(examine("a"), "annotations")
    assert "network_remove: the argument 'network' is annotated str; the specification says NetworkSpec" in message
    assert "network_list: its result is not annotated; the specification says list[str]" in message


STORAGE = """
    from pvc_core.plugin import StorageCapabilities
    from pvc_core.plugin.specs.storage import VolumeRef
    from pvc_core.testkit.fake_storage import FakeStorage

    class Driver(FakeStorage):
        def storage_capabilities(self) -> StorageCapabilities:
            return StorageCapabilities({capabilities})
"""


def test_capabilities_without_hooks_and_hooks_without_capabilities(site):
    site.plugin("a", STORAGE.format(capabilities="streams=True, snapshots=True"), kind="storage", base="")
    message = only(examine("a"), "capabilities")
    assert "'streams' but does not have volume_diff_export, volume_diff_import" in message
    assert "has node_block, node_unblock, node_identity but does not say 'blocks_nodes'" in message


def test_config_without_descriptions_and_with_an_open_secret(site):
    site.plugin("a", manifest="config='plug_a.config:Config',")
    site.module(
        "plug_a.config",
        """
        from typing import Annotated
        import msgspec
        from pvc_core.plugin import Secret

        class Config(msgspec.Struct):
            device: str
            password: Annotated[str, msgspec.Meta(description="Open.")]
            login: Annotated[Secret, msgspec.Meta(description="Named oddly.")]
        """,
    )
    message = only(examine("a"), "config")
    assert "is not frozen" in message
    assert "'device' has no description" in message
    assert "'password' looks like a secret: call it 'password_file' and give it the type Secret" in message
    assert "'login' names a file with a secret: call it 'login_file'" in message


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("plug_a.nothing:Config", "plug_a.nothing"),
        ("plug_a.driver:NIC", "NIC"),
        ("plug_a.driver:Nic", "no description"),
    ],
)
def test_config_that_is_no_schema(site, target, says):
    site.plugin("a", manifest=f"config={target!r},")
    assert says in "".join(finding.message for finding in examine("a"))


def test_validators(site):
    site.plugin("a", manifest="validators={'b': 'plug_a.driver:Driver', 'a': 'plug_a.nothing:check'},")
    message = only(examine("a"), "validators")
    assert "'b', which is not its own" in message
    assert "plug_a.nothing:check: ModuleNotFoundError" in message


COMMANDS = """commands=(
    CommandSpec(name="vm", target="plug_a.cli:good", help="Do."),
    CommandSpec(name="shared", target="plug_a.cli:good", help="Do."),
    CommandSpec(name="gone", target="plug_a.cli:gone", help="Do."),
    CommandSpec(name="text", target="plug_a.cli:text", help=""),
    CommandSpec(name="deep", target="plug_a.cli:good", help="Do.", extends="task"),
),"""


def test_commands(site):
    site.plugin("a", manifest=COMMANDS.replace("\n", ""))
    site.plugin("b", manifest="commands=(CommandSpec(name='shared', target='x:y', help='Do.'),),")
    site.module("plug_a.cli", "import click\ntext = 'text'\n@click.command()\ndef good():\n    pass\n")
    message = only(examine("a", core_commands={"vm"}), "commands")
    assert "the command 'vm' is core's own" in message
    assert "the command 'shared' is offered by plugin 'b' too" in message
    assert "the command 'gone' (plug_a.cli:gone) cannot be imported: AttributeError" in message
    assert "plug_a.cli:text is not a click command but a str" in message
    assert "the command 'text' has no help text" in message
    assert "extends 'task': use one of" in message


def test_no_py_typed(site):
    site.plugin("a")
    (site.directory / "plug_a" / "py.typed").unlink()
    assert "no py.typed" in only(examine("a"), "typed")


@pytest.mark.parametrize(
    ("requires", "says"),
    [((), "does not say which pvc-core"), (("pvc-core>=0.1",), "give it an upper bound")],
)
def test_requirements(site, requires, says):
    site.plugin("a")
    metadata = site.directory / "pvc_a-1.0.dist-info" / "METADATA"
    lines = [line for line in metadata.read_text().splitlines() if not line.startswith("Requires-Dist")]
    metadata.write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requires)]) + "\n")
    assert says in only(examine("a"), "requires")
