"""Settings of the kernel below ``/proc/sys/net``, of the network namespace that the calling thread is in.

They are named by their paths there, such as ``ipv4/ip_forward``.  Raises DriverError when the kernel refuses one.
"""

from pathlib import Path
from typing import Final

from pvc_core.plugin import DriverError

_SYSCTL: Final = Path("/proc/sys/net")
_NF_CALL: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


def read(name: str) -> str | None:
    """Return a setting; None when the kernel does not have it."""
    try:
        return (_SYSCTL / name).read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DriverError(f"cannot read {_SYSCTL / name}: {error.strerror}") from error


def write(name: str, value: str) -> None:
    """Change a setting; what the kernel does not have is left."""
    if read(name) in (value, None):
        return
    try:
        (_SYSCTL / name).write_text(value)
    except FileNotFoundError:
        return  # its device has just gone
    except OSError as error:
        raise DriverError(f"cannot write {value} to {_SYSCTL / name}: {error.strerror}") from error


def no_ipv6(name: str) -> None:
    """Keep the host itself out of the guests' IPv6: a bridge only carries their frames."""
    write(f"ipv6/conf/{name}/disable_ipv6", "1")


def no_bridge_netfilter() -> None:
    """Keep frames between guests out of the host's firewall; without the module br_netfilter they are anyway."""
    for name in _NF_CALL:
        write(f"bridge/{name}", "0")


def bridge_netfilter() -> list[str]:
    """Return the names of the settings that send frames between guests through the host's firewall."""
    return [name for name in _NF_CALL if read(f"bridge/{name}") not in ("0", None)]
