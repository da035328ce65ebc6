"""The contract of a network driver: subclass it, and your driver is tested as core's own are.

::

    class TestMyDriver(NetworkContract):
        __test__ = True

        def make_backend(self, tmp_path):
            return MyBackend()              # see NetworkBackend
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace

from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_core.plugin.errors import DriverError, ObjectMissing, Unsupported
from pvc_core.plugin.specs.network import Finding, NetworkDriver

VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
NIC = Nic(network="lan", mac="52:54:00:12:34:56")


class NetworkBackend(Protocol):
    """One node, without networks at its start."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Passwords and keys that the driver was given: none may be seen in its ``repr``."""

    def driver(self) -> NetworkDriver:
        """Return a new driver object of the node, as after a restart of its daemon."""

    def network(self, name: str) -> NetworkSpec:
        """Return a network with an id of its own and parameters that the driver accepts; it does not exist yet."""

    def put_in_the_way(self, network: NetworkSpec) -> Callable[[], bool] | None:
        """Make something that is not ours where the driver would make this network.

        Returns a function that says whether it is still as it was; None when there can be no such thing.
        """

    def close(self) -> None:
        """Take everything down."""


class NetworkContract:
    """All rules for a network driver."""

    __test__ = False

    def make_backend(self, tmp_path: Path) -> NetworkBackend:
        """Return the backend to test against."""
        raise NotImplementedError(f"{type(self).__name__}.make_backend(tmp_path) must return a NetworkBackend")

    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[NetworkBackend]:
        backend = self.make_backend(tmp_path)
        try:
            yield backend
        finally:
            backend.close()

    @pytest.fixture
    def driver(self, backend: NetworkBackend) -> NetworkDriver:
        driver = backend.driver()
        assert driver.network_preflight()
        return driver

    # --- networks -----------------------------------------------------------------------------------

    def test_a_network_is_made_and_listed(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        assert driver.network_list() == []
        state = driver.network_ensure(network)
        assert state.device
        assert len(state.device) <= 15
        assert state.mtu > 0
        assert driver.network_list() == [network.id]

    def test_making_it_again_changes_nothing(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        assert driver.network_ensure(network) == driver.network_ensure(network)
        assert driver.network_list() == [network.id]

    def test_a_restarted_daemon_adopts_what_is_there(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        state = driver.network_ensure(network)
        driver.nic_attach(network, NIC, VM, incoming=False)
        driver.network_close()
        later = backend.driver()
        assert later.network_list() == [network.id]
        assert later.network_ensure(network) == state
        assert later.nic_detach(network, NIC, VM)
        assert later.network_remove(network)
        assert later.network_list() == []

    def test_networks_have_devices_of_their_own(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        networks = [backend.network(f"lan{number}") for number in range(5)]
        devices = {driver.network_ensure(network).device for network in networks}
        assert len(devices) == 5
        assert sorted(driver.network_list()) == sorted(network.id for network in networks)
        driver.network_remove(networks[2])
        assert sorted(driver.network_list()) == sorted(n.id for n in networks if n is not networks[2])

    def test_the_device_has_the_same_name_on_every_try(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        first = driver.network_ensure(network).device
        driver.network_remove(network)
        assert driver.network_ensure(replace(network, name="renamed")).device == first

    def test_removing_what_is_not_there_is_success(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        assert driver.network_remove(network)
        driver.network_ensure(network)
        assert driver.network_remove(network)
        assert driver.network_remove(network)
        assert driver.network_list() == []

    def test_a_network_is_removed_by_its_id_alone(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        """Core does so with networks whose specification is gone."""
        network = backend.network("lan")
        driver.network_ensure(network)
        bare = NetworkSpec(id=network.id, name=network.id, driver=network.driver, deleting=True)
        assert driver.network_remove(bare)
        assert driver.network_list() == []

    def test_the_mtu_of_a_live_network_is_changed(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        driver.network_ensure(network)
        assert driver.network_ensure(replace(network, mtu=1400, generation=2)).mtu == 1400
        assert backend.driver().network_ensure(replace(network, mtu=1400, generation=2)).mtu == 1400

    def test_an_mtu_beyond_the_limit_is_refused(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        limit = driver.network_capabilities().max_mtu
        if limit:
            with pytest.raises(DriverError, match=str(limit)) as caught:
                driver.network_ensure(replace(backend.network("lan"), mtu=limit + 1))
            assert not caught.value.retryable

    def test_what_is_not_ours_is_left_alone(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        untouched = backend.put_in_the_way(network)
        if untouched is None:
            return
        with pytest.raises(DriverError) as caught:
            driver.network_ensure(network)
        assert not caught.value.retryable
        assert driver.network_list() == []
        assert driver.network_remove(network)
        assert untouched()

    def test_different_networks_can_be_worked_on_at_the_same_time(
        self, backend: NetworkBackend, driver: NetworkDriver
    ) -> None:
        networks = [backend.network(f"lan{number}") for number in range(8)]

        def live(network: NetworkSpec) -> str:
            for _ in range(3):
                driver.network_ensure(network)
                driver.network_remove(network)
            return driver.network_ensure(network).device

        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(live, networks))) == 8
        assert sorted(driver.network_list()) == sorted(network.id for network in networks)

    def test_checks_are_findings_or_unsupported(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        driver.network_ensure(network)
        try:
            findings = driver.network_check(network)
        except Unsupported:
            return
        assert findings
        assert all(isinstance(finding, Finding) and finding.check and finding.message for finding in findings)

    # --- NICs ---------------------------------------------------------------------------------------

    def test_an_attached_nic_says_how_it_is_connected(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        driver.network_ensure(network)
        source = driver.nic_attach(network, NIC, VM, incoming=False)
        root = ET.fromstring(f"<interface type='{source.type}'>{source.inner_xml}</interface>")  # noqa: S314
        assert root.find("source") is not None
        assert not {"mac", "model", "link"} & {child.tag for child in root}
        assert driver.nic_attach(network, NIC, VM, incoming=False) == source

    def test_a_nic_of_an_absent_network_is_not_attached(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        with pytest.raises(ObjectMissing):
            driver.nic_attach(backend.network("lan"), NIC, VM, incoming=False)

    def test_a_nic_is_detached_again_and_again(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        network = backend.network("lan")
        driver.network_ensure(network)
        assert driver.nic_detach(network, NIC, VM)
        driver.nic_attach(network, NIC, VM, incoming=False)
        assert driver.nic_detach(network, NIC, VM)
        assert driver.nic_detach(network, NIC, VM)
        assert driver.nic_detach(backend.network("gone"), NIC, VM)

    def test_a_live_migration_is_received_or_refused_by_the_capabilities(
        self, backend: NetworkBackend, driver: NetworkDriver
    ) -> None:
        if not driver.network_capabilities().live_migration:
            return
        network = backend.network("lan")
        driver.network_ensure(network)
        source = driver.nic_attach(network, NIC, VM, incoming=True)
        assert driver.nic_arrived(network, NIC, VM)
        assert driver.nic_attach(network, NIC, VM, incoming=False) == source
        assert driver.nic_detach(network, NIC, VM)

    # --- the driver ---------------------------------------------------------------------------------

    def test_capabilities_name_the_parameters(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        known = driver.network_capabilities().parameters
        assert set(backend.network("lan").parameters) <= set(known)

    def test_a_driver_can_be_closed_twice(self, backend: NetworkBackend) -> None:
        driver = backend.driver()
        assert driver.network_close()
        assert driver.network_close()

    def test_no_secret_is_seen_in_the_driver(self, backend: NetworkBackend, driver: NetworkDriver) -> None:
        shown = f"{driver!r} {driver.__dict__!r}"
        assert not [secret for secret in backend.secrets if secret in shown]
