"""Settings of the kernel below ``/proc/sys/net``, of the network namespace that the calling thread is in."""

from pathlib import Path
from typing import Final

from pvc_core.plugin import DriverError

_SYSCTL: Final = Path("/proc/sys/net")
_NF_CALL: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


def no_ipv6(name: str) -> None:
    """Keep the host itself out of the guests' IPv6: a bridge only carries their frames."""
    _write(_SYSCTL / "ipv6" / "conf" / name / "disable_ipv6", "1")


def no_bridge_netfilter() -> None:
    """Keep frames between guests out of the host's firewall; without the module br_netfilter they are anyway."""
    for name in _NF_CALL:
        _write(_SYSCTL / "bridge" / name, "0")


def bridge_netfilter() -> list[str]:
    """Return the names of the settings that send frames between guests through the host's firewall."""
    paths = [_SYSCTL / "bridge" / name for name in _NF_CALL]
    return [path.name for path in paths if path.exists() and path.read_text().strip() != "0"]


def write(name: str, value: str) -> None:
    """Set what is below ``/proc/sys/net`` by its path there, such as ``ipv4/ip_forward``; what the kernel has not is left."""
    _write(_SYSCTL / name, value)


def _write(path: Path, value: str) -> None:
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DriverError(f"cannot write {value} to {path}: {error.strerror}") from error
