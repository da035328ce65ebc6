"""The router outside the cluster: a real BIRD 2, of another autonomous system, in a network namespace of its own.

It is in the upstream network, where nodes reach it as their default gateway, and takes BGP sessions from every address there.
What they announce it puts into its kernel, and announces nothing itself.  Addresses on its ``lo`` stand for the Internet.
All methods work from whatever state an earlier process, killed at any moment, left behind.
"""

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pvc_core.plugin.process import Completed, run
from pvc_core.testkit.lan import entered
from pvc_sandbox import links
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import Lock, write_atomically
from pvc_sandbox.launch import launch
from pvc_sandbox.layout import ROUTER_HOST, Layout
from pvc_sandbox.records import kill, living
from pvc_sandbox.waiting import wait_until

ASN: Final = 65100
CLUSTER_ASN: Final = 65000
"""Of the nodes, as the router expects them."""
INTERNET: Final = "198.51.100.1"
"""An address beyond the router (RFC 5737)."""
INTERNET6: Final = "2001:db8:51::1"
"""The same for IPv6 (RFC 3849)."""
EXEC_DEADLINE_S: Final = 60.0
_START_DEADLINE_S: Final = 10.0
_RTPROT_BIRD: Final = 12
_MAIN_TABLE: Final = 254
_FORWARDING: Final = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
# A node whose power is cut says nothing: its routes go after 3 s, not after BIRD's 240.  Graceful restart is left as routers
# have it: a node that asks for it keeps its routes when its session is lost.
_CONFIGURATION: Final = """\
log stderr all;
router id {address};
protocol device {{}}
protocol kernel {{ ipv4 {{ import none; export all; }}; merge paths on; }}
protocol kernel {{ ipv6 {{ import none; export all; }}; merge paths on; }}
template bgp nodes {{
  hold time 3; keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1, 2;
  dynamic name "node";
  ipv4 {{ import all; export none; }};
  ipv6 {{ import all; export none; }};
}}
protocol bgp from4 from nodes {{ local {address} as {asn}; neighbor range {network} as {cluster}; }}
protocol bgp from6 from nodes {{ local {address6} as {asn}; neighbor range {network6} as {cluster}; }}
"""


class Router:
    """The router outside the cluster of a sandbox.  The sandbox's switch must be there while it is started."""

    def __init__(self, layout: Layout) -> None:
        self.namespace: Final = layout.router
        self.address: Final = layout.upstream_address(ROUTER_HOST)
        self.address6: Final = layout.upstream_address6(ROUTER_HOST)
        self._layout: Final = layout
        self._directory: Final = layout.router_run
        self._pid_file: Final = self._directory / "bird.pid"
        self._socket: Final = self._directory / "bird.ctl"
        self.log: Final = self._directory / "bird.log"

    def start(self) -> None:
        """Let it run, and return when it takes BGP sessions; one that runs goes on."""
        with self._lock():
            links.make_namespace(self.namespace)
            links.connect_router(self._layout)
            for address in (f"{INTERNET}/32", f"{INTERNET6}/128"):
                links.give_address(self.namespace, "lo", address)
            with entered(self.namespace):
                for name in _FORWARDING:
                    Path("/proc/sys/net", name).write_text("1")
            if not self.running:
                self._launch()

    def stop(self) -> None:
        """Remove it; absent is success."""
        if not self._layout.run.is_dir() and not links.namespace(self.namespace).exists():
            return
        with self._lock():
            process = living(self._pid_file)
            if process is not None:
                kill(process)
            links.remove_namespace(self.namespace)
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether BIRD runs."""
        return living(self._pid_file) is not None

    def routes(self) -> dict[str, tuple[str, ...]]:
        """Return what it learned and put into its kernel: destination -> addresses of the next hops, sorted.

        Destinations are written ``address/length``.
        """
        found: dict[str, tuple[str, ...]] = {}
        with links.opened(links.namespace(self.namespace)) as kernel:
            for family in (socket.AF_INET, socket.AF_INET6):
                for route in kernel.get_routes(family=family, table=_MAIN_TABLE, proto=_RTPROT_BIRD):
                    anywhere = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104 - no address to listen on
                    destination = f"{route.get_attr('RTA_DST') or anywhere}/{route['dst_len']}"
                    found[destination] = tuple(sorted({*found.get(destination, ()), *_next_hops(route)}))
        return found

    def exec(self, argv: Sequence[str], *, deadline_s: float = EXEC_DEADLINE_S) -> Completed:
        """Run a program in its network namespace to the end; a non-zero status is not an error."""
        return run([*self._enter(), *argv], deadline_s=deadline_s)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net={links.namespace(self.namespace)}", "--"]

    def _launch(self) -> None:
        layout, configuration = self._layout, self._directory / "bird.conf"
        content = _CONFIGURATION.format(
            address=self.address,
            address6=self.address6,
            network=layout.upstream_network,
            network6=layout.upstream_network6,
            asn=ASN,
            cluster=CLUSTER_ASN,
        )
        write_atomically(configuration, content)
        self._socket.unlink(missing_ok=True)
        argv = ["bird", "-f", "-c", str(configuration), "-s", str(self._socket)]
        process = launch([*self._enter(), *argv], record=self._pid_file, log=self.log)

        def listens() -> bool:
            if process is None or not self.running:
                raise SandboxError(f"the router outside ended at once; see {self.log}")
            return self._socket.exists()

        wait_until("start of the router outside", listens, deadline_s=_START_DEADLINE_S)

    def _lock(self) -> Lock:
        return Lock(self._layout.run / "router.lock")


def _next_hops(route: Any) -> list[str]:
    several = route.get_attr("RTA_MULTIPATH")
    gateways = [hop.get_attr("RTA_GATEWAY") for hop in several] if several else [route.get_attr("RTA_GATEWAY")]
    return [str(gateway) for gateway in gateways if gateway]
