"""Every way in which a plugin can be bad: the node's other plugins work, and its status says what is wrong."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pvc_core.config.load import explain
from pvc_core.config.schema import NodeConfig
from pvc_core.model.network import NetworkSpec
from pvc_core.model.node import PluginStatus
from pvc_core.model.vm import Nic
from pvc_core.plugin import DriverError, NodeInfo, NotReady
from pvc_core.plugin.errors import CircuitOpen, DeadlineExceeded, PluginContractError, Unsupported
from pvc_core.runtime import start, unit
from pvc_core.runtime.hooks import within
from pvc_core.runtime.registry import Registry
from pvc_core.runtime.start import load_plugins
from pvc_core.testkit.distributions import Site, node_config
from pvc_core.testkit.waiting import eventually

NETWORK = NetworkSpec(id="1", name="lan", driver="any")
NIC = Nic(network="1", mac="52:54:00:00:00:01")
NODE = NodeInfo(name="node1", role="coordinator")


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        site.plugin("good")
        yield site


def ignore(kind: str, id: str) -> None:
    """Wake nobody."""


def config(*names: str, **sections) -> NodeConfig:
    return node_config({**dict.fromkeys(names), **sections})


@pytest.fixture
def load() -> Iterator[Callable[..., Registry]]:
    """Load the named plugins and ``good`` after them, and check afterwards that ``good`` worked all the time."""
    made: list[Registry] = []

    def load(*names: str, wake=ignore, **sections) -> Registry:
        registry = load_plugins(config(*names, **sections, good=None), NODE, wake, preflight_every_s=None)
        made.append(registry)
        return registry

    yield load
    for registry in made:
        assert registry.network("good").network_ensure(NETWORK).device == "br-lan"
        assert status(registry, "good").state == "healthy"
        registry.close()


def status(registry: Registry, name: str) -> PluginStatus:
    return next(s for s in registry.status() if s.name == name)


def failed(registry: Registry, name: str, stage: str, *words: str) -> None:
    found = status(registry, name)
    assert (found.state, found.stage) == ("failed", stage), found
    assert not found.capabilities
    for word in words:
        assert word in found.error
    assert name not in registry.network_drivers()
    with pytest.raises(NotReady, match="node1"):
        registry.network(name)


def test_not_installed(site, load):
    registry = load("goood")
    failed(registry, "goood", "discover", "'goood'", "did you mean 'good'?")
    with pytest.raises(NotReady, match=r"'goood' does not work on node node1: .*did you mean 'good'"):
        registry.network("goood")


def test_two_distributions_offer_one_plugin_name(site, load):
    site.plugin("twin")
    site.distribution("pvc-other", {"pvc.plugin": {"twin": "plug_other:MANIFEST"}}, version="2.0")
    failed(load("twin"), "twin", "discover", "pvc-twin 1.0", "pvc-other 2.0", "uninstall all but one")


def test_two_distributions_offer_one_driver_name(site, load):
    site.plugin("twin")
    site.distribution("pvc-other", {"pvc.network": {"twin": "plug_other:Driver"}}, version="2.0")
    registry = load("twin")
    failed(registry, "twin", "discover", "pvc-twin 1.0", "pvc-other 2.0")
    with pytest.raises(NotReady, match="plugin 'twin' failed"):
        registry.network("twin")
    assert "plug_twin.driver" not in sys.modules


def test_a_driver_that_the_distribution_does_not_offer(site, load):
    site.plugin("liar", manifest="network=('liar', 'lair'),")
    failed(load("liar"), "liar", "discover", "'lair'")


def test_a_driver_of_another_distribution(site, load):
    site.plugin("thief", manifest="network=('good',),")
    failed(load("thief"), "thief", "discover", "belongs to pvc-good 1.0, not to pvc-thief 1.0")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_library", ["ModuleNotFoundError: No module named 'no_such_library'", "driver.py:"]),
        ("assert 1 == 2, 'sums'", ["AssertionError: sums"]),
        ("import sys; sys.exit(3)", ["sys.exit(3)"]),
        ("raise BaseException('odd')", ["BaseException: odd"]),
        ("def (", ["SyntaxError"]),
        ("del Driver", ["Driver"]),
    ],
)
def test_import_of_the_driver_fails(site, load, source, words):
    site.plugin("bad", source)
    failed(load("bad"), "bad", "import", *words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_library", ["no_such_library"]),
        ("import sys; sys.exit(1)", ["sys.exit(1)"]),
        ("MANIFEST = 'text'", ["is a str, not a Manifest"]),
        (
            "from pvc_core.plugin import *; MANIFEST = Manifest(name='x', summary='', api=HOOK_API)",
            ["'x'", "'bad'", "make them equal"],
        ),
    ],
)
def test_the_manifest_is_broken(site, load, source, words):
    site.plugin("bad")
    site.module("plug_bad.manifest", source)
    failed(load("bad"), "bad", "discover", *words)


def test_import_that_never_ends(site, load, monkeypatch):
    monkeypatch.setattr(start, "LOAD_S", 0.2)
    site.plugin("slowpoke", "import threading; threading.Event().wait(20)")
    failed(load("slowpoke"), "slowpoke", "import", "did not come back within 0.2 s")


@pytest.mark.parametrize(
    ("api", "words"),
    [
        ("(HOOK_API[0], HOOK_API[1] + 1)", ["needs hook API", "update pvc-core", "pvc-new 1.0"]),
        ("(HOOK_API[0] + 1, 0)", ["another major version"]),
    ],
)
def test_newer_hook_api_is_refused_before_the_driver_is_imported(site, load, api, words):
    site.plugin("new", api=api)
    failed(load("new"), "new", "gate", *words)
    assert "plug_new.driver" not in sys.modules


def test_wrong_signature(site, load):
    site.plugin(
        "bad",
        """
        class Driver(Driver):
            def network_ensure(self, network, colour):
                return None
        """,
    )
    failed(load("bad"), "bad", "register", "network_ensure", "colour")


def test_keyword_only_argument(site, load):
    site.plugin(
        "bad",
        """
        class Driver(Driver):
            def network_remove(self, *, network):
                return True
        """,
    )
    failed(load("bad"), "bad", "register", "network_remove", "'network' is keyword-only")


def test_unknown_hook(site, load):
    site.plugin(
        "bad",
        """
        from pvc_core.plugin import hookimpl

        class Driver(Driver):
            @hookimpl
            def vm_begun(self, vm):
                pass
        """,
    )
    failed(load("bad"), "bad", "register", "vm_begun")


def test_hook_of_another_kind_of_driver(site, load):
    site.plugin(
        "bad",
        """
        from pvc_core.plugin import hookimpl

        class Driver(Driver):
            @hookimpl
            def volume_info(self, volume):
                pass
        """,
    )
    failed(load("bad"), "bad", "register", "volume_info", "StorageDriver")


def test_wrapper(site, load):
    site.plugin(
        "bad",
        """
        from pvc_core.plugin import hookimpl

        class Driver(Driver):
            @hookimpl(wrapper=True)
            def vm_started(self, vm):
                return (yield)
        """,
    )
    failed(load("bad"), "bad", "register", "vm_started", "may not wrap")


def test_hook_that_is_no_method(site, load):
    site.plugin("bad", "class Driver(Driver):\n    network_remove = 'text'\n")
    failed(load("bad"), "bad", "register", "network_remove", "not a method")


def test_driver_that_lacks_a_mandatory_hook(site, load):
    site.plugin("bad", "class Driver(NetworkDriver):\n    def network_remove(self, network): return True\n")
    failed(load("bad"), "bad", "instantiate", "network_ensure")


def test_driver_that_is_not_derived_from_its_specification(site, load):
    site.plugin("bad", "class Driver:\n    pass\n")
    failed(load("bad"), "bad", "instantiate", "is not a NetworkDriver class")


def test_constructor_raises(site, load):
    site.plugin(
        "bad", "class Driver(Driver):\n    def __init__(self, context, config):\n        raise SystemExit('no card')\n"
    )
    failed(load("bad"), "bad", "instantiate", "sys.exit('no card')")


SCHEMA = """
    import msgspec
    from pvc_core.plugin import HOOK_API, Manifest, Secret

    class Config(msgspec.Struct, frozen=True):
        device: str
        mtu: int = 1500
        password_file: Secret | None = None

    MANIFEST = Manifest(
        name="picky", summary="", api=HOOK_API, network=("picky",), config="plug_picky.manifest:Config"
    )
"""


def test_invalid_configuration_says_file_and_line(site, tmp_path):
    site.plugin("picky")
    site.module("plug_picky.manifest", SCHEMA)
    file = tmp_path / "pvcnoded.yml"
    file.write_text("plugins:\n  picky:\n    devise: eth0\n    mtu: big\n  good:\n")
    registry = load_plugins(
        config(picky={"devise": "eth0", "mtu": "big"}, good=None),
        NODE,
        ignore,
        explain=explain(str(file)),
        preflight_every_s=None,
    )
    found = status(registry, "picky")
    assert (found.state, found.stage) == ("failed", "config")
    assert found.error.splitlines() == [
        f"{file}:2: plugins.picky: the key 'device' is missing: expected text",
        f"{file}:3: plugins.picky.devise: unknown key; did you mean 'device'?",
        f"{file}:4: plugins.picky.mtu: expected a whole number, found the text 'big'",
    ]
    assert registry.network_drivers() == ["good"]
    assert "plug_picky.driver" not in sys.modules
    registry.close()


def test_settings_for_a_plugin_that_takes_none(site, load):
    site.plugin("plain")
    failed(load(plain={"colour": "red"}), "plain", "config", "'colour'", "takes no settings")


def test_schema_that_cannot_be_imported(site, load):
    site.plugin("bad", manifest="config='plug_bad.nothing:Config',")
    failed(load("bad"), "bad", "config", "plug_bad.nothing")


def test_preflight_fails_then_heals(site, load, tmp_path):
    site.plugin(
        "ill",
        f"""
        import pathlib
        from pvc_core.plugin import NotReady

        class Driver(Driver):
            def network_preflight(self):
                if not pathlib.Path({str(tmp_path / "card")!r}).exists():
                    raise NotReady("there is no card")
                return True
        """,
    )
    woken = []
    registry = load("ill", wake=lambda *key: woken.append(key))
    failed(registry, "ill", "preflight", "there is no card")
    woken.clear()
    (tmp_path / "card").touch()
    registry.preflight()
    assert status(registry, "ill").state == "healthy"
    assert status(registry, "ill").capabilities == ("network:ill",)
    assert woken == [("node", "node1")]
    assert registry.network("ill").network_remove(NETWORK)


def test_preflight_is_repeated_until_it_succeeds(site, tmp_path):
    site.plugin(
        "ill",
        f"""
        import pathlib

        class Driver(Driver):
            def network_preflight(self):
                return pathlib.Path({str(tmp_path / "card")!r}).exists()
        """,
    )
    healed = threading.Event()
    registry = load_plugins(config("ill"), NODE, lambda *_: healed.set(), preflight_every_s=0.02)
    assert "returned False" in status(registry, "ill").error
    (tmp_path / "card").touch()
    assert healed.wait(20)
    assert registry.network_drivers() == ["ill"]
    registry.close()


def test_preflight_hangs(site, load):
    site.plugin(
        "stuck",
        """
        import threading

        class Driver(Driver):
            def network_preflight(self):
                threading.Event().wait(20)
        """,
    )
    with within(0.2):
        registry = load("stuck")
    failed(registry, "stuck", "preflight", "did not come back within 0.2 s")


def test_capabilities_of_the_wrong_type(site, load):
    site.plugin("bad", "class Driver(Driver):\n    def network_capabilities(self):\n        return {}\n")
    failed(load("bad"), "bad", "preflight", "type dict instead of NetworkCapabilities")


HOOKS = """
    import threading
    from pvc_core.model.errors import InvalidRequest
    from pvc_core.plugin import Cancelled, DriverError, ObjectMissing

    class Driver(Driver):
        release = threading.Event()

        def network_remove(self, network):
            if network.name == "hang":
                self.release.wait(60)
                return True
            raise {
                "error": ValueError("boo"),
                "exit": SystemExit(1),
                "driver": DriverError("no carrier", retryable=False),
                "missing": ObjectMissing("no such device"),
                "request": InvalidRequest("mtu 1 is too small"),
                "cancelled": Cancelled(),
            }[network.name]

        def network_list(self):
            return None

        def network_ensure(self, network):
            return "br0"

        def nic_attach(self, network, nic, vm, incoming):
            from pvc_core.plugin import NicSource
            return NicSource(type=3, inner_xml="")
"""


def net(name: str) -> NetworkSpec:
    return NetworkSpec(id="1", name=name, driver="any")


def test_hook_raises_something_unexpected(site, load, caplog):
    site.plugin("bad", HOOKS)
    driver = load("bad").network("bad")
    for _ in range(2):
        with pytest.raises(
            DriverError, match=r"^bad.network_remove: unexpected ValueError: boo \(.*driver.py:"
        ) as caught:
            driver.network_remove(net("error"))
    assert (caught.value.plugin, caught.value.hook, caught.value.retryable) == ("bad", "network_remove", True)
    assert isinstance(caught.value.__cause__, ValueError)
    logged = [record for record in caplog.records if record.message.startswith("hook-raised")]
    assert len(logged) == 1, "a traceback is logged once for each fingerprint"
    assert logged[0].exc_info


def test_hook_calls_sys_exit(site, load):
    site.plugin("bad", HOOKS)
    with pytest.raises(DriverError, match=r"sys.exit\(1\)"):
        load("bad").network("bad").network_remove(net("exit"))


@pytest.mark.parametrize(
    ("name", "text", "retryable"),
    [
        ("driver", "bad.network_remove: no carrier", False),
        ("missing", "bad.network_remove: no such device", False),
        ("request", "bad.network_remove: mtu 1 is too small", False),
    ],
)
def test_expected_errors_keep_their_kind_and_get_the_hooks_name(site, load, name, text, retryable):
    site.plugin("bad", HOOKS)
    registry = load("bad")
    with pytest.raises(DriverError) as caught:
        registry.network("bad").network_remove(net(name))
    assert (str(caught.value), caught.value.retryable) == (text, retryable)
    assert type(caught.value).__name__ == ("ObjectMissing" if name == "missing" else "DriverError")


def test_cancelled_is_no_failure(site, load):
    site.plugin("bad", HOOKS)
    registry = load("bad")
    with pytest.raises(Exception) as caught:
        registry.network("bad").network_remove(net("cancelled"))
    assert type(caught.value).__name__ == "Cancelled"
    assert status(registry, "bad").failures == 0


@pytest.mark.parametrize("name", ["missing", "request"])
def test_what_is_wrong_with_the_request_is_no_failure_of_the_plugin(site, load, name):
    site.plugin("bad", HOOKS)
    registry = load("bad")
    for _ in range(3):
        with pytest.raises(DriverError):
            registry.network("bad").network_remove(net(name))
    assert (status(registry, "bad").failures, status(registry, "bad").state) == (0, "healthy")


def test_hook_returns_none(site, load):
    site.plugin("bad", HOOKS)
    with pytest.raises(PluginContractError, match=r"bad.network_list: it returned None instead of list\[str\]"):
        load("bad").network("bad").network_list()


def test_hook_returns_the_wrong_type(site, load):
    site.plugin("bad", HOOKS)
    driver = load("bad").network("bad")
    with pytest.raises(PluginContractError, match="a value of type str instead of NetworkState"):
        driver.network_ensure(NETWORK)
    with pytest.raises(PluginContractError, match=r"in NicSource.type: a value of type int instead of str"):
        driver.nic_attach(NETWORK, NIC, "vm", incoming=False)


def test_hook_that_the_driver_does_not_have(site, load):
    registry = load()
    with pytest.raises(Unsupported, match=r"good.network_check: this network driver has no checks"):
        registry.network("good").network_check(NETWORK)


def test_several_failures_in_a_row_make_the_plugin_degraded(site, load):
    site.plugin("bad", HOOKS)
    registry = load("bad")
    driver = registry.network("bad")
    for _ in range(3):
        assert status(registry, "bad").state == "healthy"
        with pytest.raises(DriverError):
            driver.network_remove(net("error"))
    found = status(registry, "bad")
    assert (found.state, found.stage) == ("degraded", "call")
    assert found.error.startswith("network_remove: ValueError: boo")
    assert found.capabilities == ("network:bad",), "degraded is still usable"
    assert (found.failures, found.timeouts) == (3, 0)
    driver.nic_detach(NETWORK, NIC, "vm")
    assert status(registry, "bad").state == "healthy"


def test_slow_hook_is_logged_while_it_runs(site, load, monkeypatch, caplog):
    monkeypatch.setattr(unit, "SLOW_S", 0.05)
    site.plugin("bad", HOOKS)
    registry = load("bad")
    driver = registry.network("bad")
    release = sys.modules["plug_bad.driver"].Driver.release
    caller = threading.Thread(target=driver.network_remove, args=(net("hang"),))
    caller.start()
    eventually(lambda: any(r.message.startswith("hook-slow plugin=bad") for r in caplog.records), "it is logged")
    assert caller.is_alive()
    release.set()
    caller.join(20)
    assert status(registry, "bad").state == "healthy"


def test_hook_hangs_for_ever(site, load):
    site.plugin("bad", HOOKS)
    woken = []
    registry = load("bad", wake=lambda *key: woken.append(key))
    driver = registry.network("bad")
    woken.clear()
    for _ in range(2):
        begun = time.monotonic()
        with (
            within(0.1),
            pytest.raises(DeadlineExceeded, match=r"bad.network_remove: it did not come back within 0.1 s"),
        ):
            driver.network_remove(net("hang"))
        assert time.monotonic() - begun < 10
    with pytest.raises(CircuitOpen, match="2 calls hang"):
        driver.nic_detach(NETWORK, NIC, "vm")
    found = status(registry, "bad")
    assert (found.state, found.stage, found.capabilities, found.timeouts) == ("open", "call", (), 2)
    assert "network_remove: it did not come back" in found.error
    assert registry.network_drivers() == ["good"]
    assert woken == [("node", "node1")], "the node publishes at once that the capability is gone"

    sys.modules["plug_bad.driver"].Driver.release.set()
    eventually(lambda: status(registry, "bad").capabilities == ("network:bad",), "the capability is back")
    assert driver.nic_detach(NETWORK, NIC, "vm")
    assert status(registry, "bad").state == "healthy"


def test_closing_does_not_wait_for_a_stuck_call(site, load):
    site.plugin("bad", HOOKS)
    registry = load_plugins(config("bad"), NODE, ignore, preflight_every_s=None)
    with within(0.05), pytest.raises(DeadlineExceeded):
        registry.network("bad").network_remove(net("hang"))
    begun = time.monotonic()
    registry.close()
    assert time.monotonic() - begun < 10
    sys.modules["plug_bad.driver"].Driver.release.set()


def test_failures_are_logged_with_stage_and_reason(site, load, caplog):
    with caplog.at_level(logging.ERROR):
        load("nothing")
    assert [r.message for r in caplog.records if "plugin=nothing stage=discover" in r.message]
