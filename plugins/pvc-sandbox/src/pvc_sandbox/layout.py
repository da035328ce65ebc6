"""Where everything of a sandbox is: names, addresses and paths, all from its name and its index.

Lasting files (the nodes' "disks") are in the state directory.  What a reboot of this machine may lose, and
sockets, whose paths must be short, are below ``/run/pvc-sandbox``.
"""

import contextlib
import hashlib
import re
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import msgspec

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import Lock, write_atomically

STATE_ROOT: Final = Path("/var/lib/pvc-sandbox")
RUN_ROOT: Final = Path("/run/pvc-sandbox")
RECORD_FILE: Final = "sandbox.json"
"""In the state directory and below RUN_ROOT: the layout."""
PLAN_FILE: Final = "cluster.json"
"""In the state directory: what the cluster consists of; a directory of bare hosts has none."""
MAX_INDEX: Final = 250
MAX_NODES: Final = 99
SWITCH_HOST: Final = 254
"""Last octet of the switch's own address: clients and tests reach the nodes from there."""
ROUTER_HOST: Final = 250
"""Last octet of the router outside the cluster, in the upstream network."""
FLOATING_HOST: Final = 240
"""Last octet of the addresses that move with the primary role."""
_FIRST_BMC: Final = 100
"""A BMC's last octet is this and its node's number."""

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One sandbox's names and addresses.  Node numbers begin with 1."""

    name: str
    index: int
    """Third octet of its networks: several sandboxes live side by side."""
    state: str
    """State directory."""

    @property
    def run(self) -> Path:
        """Directory of sockets and of the records of what runs."""
        return RUN_ROOT / self.name

    @property
    def switch(self) -> str:
        """Network namespace of the switch that all nodes are connected to."""
        return f"pvc-{self.name}"

    @property
    def router(self) -> str:
        """Network namespace of the router outside the cluster."""
        return f"{self.switch}-router"

    @property
    def shared(self) -> Path:
        """Directory that all nodes see: pool images."""
        return Path(self.state) / "shared"

    @property
    def client_config(self) -> Path:
        """Configuration with which ``pvc`` reaches this cluster from the machine itself."""
        return Path(self.state) / "pvc.yml"

    def cluster_address(self, host: int = SWITCH_HOST) -> str:
        """Return a node's address in the cluster network (a /24)."""
        return f"10.77.{self.index}.{host}"

    def cluster_address6(self, host: int = SWITCH_HOST) -> str:
        """Return a node's IPv6 address in the cluster network (a /64); its number is that of the IPv4 one."""
        return _address6("fd77", self.index, host)

    def upstream_address(self, host: int = SWITCH_HOST) -> str:
        """Return a node's address in the upstream network (a /24), where the router outside is."""
        return f"10.80.{self.index}.{host}"

    def upstream_address6(self, host: int = SWITCH_HOST) -> str:
        """Return a node's IPv6 address in the upstream network (a /64)."""
        return _address6("fd80", self.index, host)

    def guest_address(self, host: int = SWITCH_HOST) -> str:
        """Return an address in the guests' network (a /24); the nodes themselves have none there."""
        return f"10.78.{self.index}.{host}"

    def management_address(self, host: int = SWITCH_HOST) -> str:
        """Return a node's address in the management network (a /24), where the BMCs are."""
        return f"10.79.{self.index}.{host}"

    def bmc_address(self, number: int) -> str:
        """Return the address of a node's BMC, which is in the management network."""
        return self.management_address(_FIRST_BMC + number)

    @property
    def cluster_network(self) -> str:
        """Network of the nodes' addresses."""
        return f"{self.cluster_address(0)}/24"

    @property
    def cluster_network6(self) -> str:
        """Network of the nodes' IPv6 addresses."""
        return f"{_address6('fd77', self.index, 0)}/64"

    @property
    def upstream_network(self) -> str:
        """Network between the nodes and the router outside."""
        return f"{self.upstream_address(0)}/24"

    @property
    def upstream_network6(self) -> str:
        """The same for IPv6."""
        return f"{_address6('fd80', self.index, 0)}/64"

    @property
    def guest_network(self) -> str:
        """Network of the guests' addresses."""
        return f"{self.guest_address(0)}/24"

    @property
    def management_network(self) -> str:
        """Network of the nodes' BMCs."""
        return f"{self.management_address(0)}/24"

    def node_name(self, number: int) -> str:
        """Return a node's name, which is also the name of its port on the switch."""
        return f"hv{number}"

    def node_number(self, node: str) -> int:
        """Return the number of a node; raises SandboxError when it is not a node's name."""
        match = re.fullmatch(r"hv([1-9][0-9]?)", node)
        if match is None:
            raise SandboxError(f"{node!r} is not a node of a sandbox; they are called hv1, hv2, ...")
        return int(match[1])

    def node_state(self, number: int) -> Path:
        """Return the directory with what a node has on its disk."""
        return Path(self.state) / self.node_name(number)

    def node_run(self, number: int) -> Path:
        """Return the directory that a node sees as /run."""
        return self.run / self.node_name(number)

    def bmc_run(self, number: int) -> Path:
        """Return the directory of a node's BMC."""
        return self.run / "bmc" / self.node_name(number)

    @property
    def router_run(self) -> Path:
        """Directory of the router outside."""
        return self.run / "router"

    def watchdog_record(self, number: int) -> Path:
        """Return the file that says which process is a node's watchdog."""
        return self.run / f"{self.node_name(number)}.watchdog"

    def mac(self, number: int, network: int) -> str:
        """Return the address of a node's card: the same after a power cut, as with real hardware."""
        return f"02:77:{self.index:02x}:{network:02x}:00:{number:02x}"


def _address6(block: str, index: int, host: int) -> str:
    # As the kernel prints it.
    return str(IPv6Address(f"{block}:0:0:{index:x}::{host:x}"))


def default_name(state: Path) -> str:
    """Return the name of a sandbox that is only known by its directory."""
    plain = re.sub(r"[^a-z0-9]+", "-", state.name.lower()).strip("-")[:16] or "sandbox"
    if state.parent == STATE_ROOT and plain == state.name:
        return plain
    return f"{plain}-{hashlib.sha256(str(state).encode()).hexdigest()[:6]}"


def load_layout(state: Path) -> Layout | None:
    """Return the layout recorded in a state directory, None when there is none."""
    path = state / RECORD_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Layout)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise SandboxError(f"{path} cannot be read ({error}); remove it to begin anew") from error


def claim_layout(state: Path, name: str | None = None) -> Layout:
    """Return the layout of the sandbox in this directory, and reserve its name and index on this machine.

    The same directory gets the same layout each time.  Raises SandboxError when another directory has the
    name, or when all indexes are in use.
    """
    state = state.absolute()
    hidden = next((root for root in ("/run", "/var/run", "/dev", "/proc", "/sys") if state.is_relative_to(root)), None)
    if hidden is not None:
        raise SandboxError(f"{state} cannot hold a sandbox: every node has a {hidden} of its own and would not see it")
    known = load_layout(state)
    if known is None and any(not _is_half_record(path) for path in _entries(state)):
        # It is removed whole when the sandbox is.
        raise SandboxError(f"{state} is not empty, and nothing in it is of a sandbox; choose a directory of its own")
    wanted = name or (known.name if known else default_name(state))
    check_name(wanted)
    if known is not None and known.name != wanted:
        raise SandboxError(f"{state} holds the sandbox {known.name!r}, not {wanted!r}; give another --state directory")
    with Lock(RUN_ROOT / "lock"):
        holder = _holders().get(wanted)
        if holder is not None and holder.state != str(state):
            raise SandboxError(
                f"a sandbox named {wanted!r} exists already in {holder.state}; choose another --name, or remove it "
                f"with: pvc sandbox down --name {wanted}"
            )
        taken = {other.index for other in _holders().values() if other.name != wanted}
        candidates = [known.index] if known else []
        candidates += range(MAX_INDEX + 1)
        index = next((i for i in candidates if i not in taken), None)
        if index is None:
            raise SandboxError(f"all {MAX_INDEX + 1} networks for sandboxes are in use; remove one: pvc sandbox down")
        layout = Layout(name=wanted, index=index, state=str(state))
        write_atomically(RUN_ROOT / wanted / RECORD_FILE, msgspec.json.encode(layout))
        write_atomically(state / RECORD_FILE, msgspec.json.encode(layout))
    return layout


def check_name(name: str) -> None:
    """Raise SandboxError unless a sandbox may be called so."""
    if not _NAME.fullmatch(name):
        raise SandboxError(
            f"sandbox name {name!r} is not valid: use up to 32 small letters, digits and dashes, "
            "beginning and ending with a letter or digit"
        )


def find_layout(name: str) -> Layout | None:
    """Return the layout of the named sandbox, wherever its state is; None when there is none."""
    return load_layout(RUN_ROOT / name) or load_layout(STATE_ROOT / name)


def sandboxes() -> list[Layout]:
    """Return all sandboxes of this machine that are up, or were not brought down."""
    return sorted(_holders().values(), key=lambda layout: layout.name)


def forget_empty_directories() -> None:
    """Remove the directories of all sandboxes together when there is none any more."""
    with Lock(RUN_ROOT / "lock") as lock, contextlib.suppress(OSError):  # somebody has just made a new one
        if {path.name for path in RUN_ROOT.iterdir()} == {"lock"}:
            lock.delete()
            RUN_ROOT.rmdir()
        if STATE_ROOT.is_dir() and not any(STATE_ROOT.iterdir()):
            STATE_ROOT.rmdir()


def _entries(state: Path) -> list[Path]:
    try:
        return list(state.iterdir())
    except FileNotFoundError:
        return []


def _is_half_record(path: Path) -> bool:
    """Whether it is what a killed process left of the very first file."""
    return path.name.startswith(f".{RECORD_FILE}.")


def _holders() -> dict[str, Layout]:
    found = (load_layout(path.parent) for path in RUN_ROOT.glob(f"*/{RECORD_FILE}"))
    # A state directory that somebody removed by hand does not keep its name and network for ever.
    return {layout.name: layout for layout in found if layout is not None and Path(layout.state).is_dir()}
