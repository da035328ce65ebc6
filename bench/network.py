"""./dev bench network: managed networks (driver vxlan) on three nodes of a sandbox.

Prints one JSON object per line.  Parts (``--only``):

adds       seconds from the start of `pvc network add` until two guests on two nodes ping each other
many       N networks: until every node has them, without gateways and with; the daemons started anew; one change
           afterwards; memory; CPU seconds while nothing changes
takeover   how long guests lose their gateway, and what is beyond the router outside: planned, and when the power of the
           primary is cut; with 1 network and with N
migration  pings lost while their target is moved live

Guests are network namespaces, plugged into the bridges by veth; the one that is moved is a real one.  Each part ends with
the machine's load average.
"""

import argparse
import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import yaml
from _cluster import note
from _network_guests import KIND, Guest, Pings, guests
from _network_site import DAEMON, LONG_S, Log, Network, Site, Used, now, site, tell

from pvc_sandbox.images import LINUX_MEMORY_MIB, tiny_linux
from pvc_sandbox.router import INTERNET
from pvc_sandbox.waiting import wait_until

TIMING = {"lease": 4.0, "grace": 2.0}
"""Of the part that cuts the power: the fast profile of `./dev bench failover`."""
PATIENT = {"lease": 20.0}
"""Of the other parts: a daemon that stands still while all networks change must not lose its lease."""
WATCHED = 5
"""Guests that ping during a takeover of many gateways, each in another network."""
STARTED = "gateway-dnsmasq-started"
STATUS = "network-status"


def adds(made: Site, runs: int) -> None:
    """Time from the command to the first ping."""
    times, commands = [], []
    nodes = [node for node in made.nodes if node != made.primary]
    for number in range(runs):
        network = Network("", number)
        ends = [Guest(made, node, f"bg{number}x{host}", network.address(host)) for host, node in enumerate(nodes, 10)]
        with contextlib.ExitStack() as ending, ThreadPoolExecutor(len(ends)) as pool:
            for guest in ends:
                ending.callback(guest.remove)
                guest.make(network)
            begun = now()
            words = [f"vni={1000 + number}", f"ipv4={network.address(0)}/24"]
            made.sandbox.pvc(
                "network", "add", network.name, "-d", "vxlan", *(word for text in words for word in ("-p", text))
            )
            commands.append(now() - begun)
            here = network._replace(id=made.client.call("network.info", network=network.name).view.id)
            for done in [pool.submit(guest.plug, here) for guest in ends]:
                done.result()
            with Pings(ends[0], ends[1].address) as pings:
                times.append(pings.first() - begun)
    tell_times("add_to_ping_s", times, guests=KIND)
    tell_times("add_command_s", commands)
    made.remove()


def many(made: Site, count: int, quiet_s: float) -> None:
    """Many networks, without gateways and with."""
    before = {node: made.used(node) for node in made.nodes}
    quiet(made, quiet_s, "no_networks")
    logs, begun = made.logs(), now()
    networks = made.add(range(count), gateway=False)
    tell("many_asked_s", now() - begun, unit="s", networks=count)
    for log in logs:
        log.wait(STATUS, count)
    tell("many_on_all_nodes_s", max(log.wait(STATUS, count) for log in logs) - begun, unit="s", networks=count)
    quiet(made, quiet_s, "without_gateways", networks=count)
    others = [node for node in made.nodes if node != made.primary]
    with guests(made, [(node, networks[0], 10 + at) for at, node in enumerate(others)]) as ends:
        restart(made, others[0], networks, ends, "restart_without_gateways")
    log, begun = Log(made.sandbox, made.primary), now()
    for network in networks:
        made.modify([network], parameters=network.gateway)
    tell("gateways_made_s", log.wait(STARTED, count) - begun, unit="s", networks=count)
    settle(made, networks)
    quiet(made, quiet_s, "with_gateways", networks=count)
    for node in made.nodes:
        for name, used in made.used(node).items():
            old = before[node].get(name, Used())
            tell(
                f"rss_{name}", used.rss_mib, unit="MiB", before=round(old.rss_mib, 1), pss=round(used.pss_mib, 1),
                processes=used.processes, node=node, primary=node == made.primary, networks=count,
            )  # fmt: skip
    changes(made, networks)
    # The role goes elsewhere when its node's daemon stays away; this one is back within its lease.
    restart(made, made.primary, networks, [], "restart_with_gateways")


def restart(made: Site, node: str, networks: Sequence[Network], ends: Sequence[Guest], name: str) -> None:
    """Kill a node's daemon, and wait until it has confirmed every network.

    All networks change while it stands still, so that each confirmation is seen.
    """
    host, primary = made.sandbox.host(node), made.primary
    with contextlib.ExitStack() as ending:
        pings = [ending.enter_context(Pings(ends[0], ends[1].address))] if ends else []
        for each in pings:
            each.flow()
        host.signal_service(DAEMON, signal.SIGSTOP)
        made.modify(networks, description=f"{name} {now()}")
        log, begun = Log(made.sandbox, node), now()
        host.signal_service(DAEMON, signal.SIGKILL)
        settled = log.wait(STATUS, len(networks))
        for each in pings:
            each.flow()
        seen = [each.seen() for each in pings]
    more = {"lost_pings": seen[0].lost, "pings": seen[0].answered + seen[0].lost} if seen else {}
    told = log.told(STATUS).values()
    tell(
        f"{name}_s", settled - begun, unit="s", networks=len(networks), first_s=round(min(told) - begun, 3),
        still_primary=made.primary == primary, **more,
    )  # fmt: skip
    settle(made, networks)


def changes(made: Site, networks: Sequence[Network]) -> None:
    """One change at a time, until it is applied on all nodes and the command has ended."""
    pvc, kinds = made.sandbox.pvc, {"rule": [], "range": []}
    for number in range(5):
        network = networks[number * len(networks) // 5]
        rule = ("acl", "add", network.name, "--in", "--protocol", "tcp", "--port", "22", "--action", "accept")
        ranged = ("modify", network.name, "-p", f"dhcp4={network.address(50)}-{network.address(90)}")
        for name, words in (("rule", rule), ("range", ranged)):
            begun = now()
            log = Log(made.sandbox, made.primary)
            pvc("network", *words)
            ended = now() - begun
            kinds[name].append((log.wait(STATUS, 1) - begun, ended))
    for name, found in kinds.items():
        tell_times(f"one_{name}_applied_s", [applied for applied, _ in found], networks=len(networks))
        tell_times(f"one_{name}_command_s", [ended for _, ended in found], networks=len(networks))


def quiet(made: Site, seconds: float, name: str, **more: int) -> None:
    """What the daemons and their children use of a processor in some seconds in which nothing changes."""
    time.sleep(seconds / 4)  # until what was before is over; nothing tells when
    before = {node: made.used(node)[DAEMON] for node in made.nodes}
    time.sleep(seconds)
    for node in made.nodes:
        used = made.used(node)[DAEMON]
        own, children = used.cpu_s - before[node].cpu_s, used.children_cpu_s - before[node].children_cpu_s
        tell(
            f"quiet_cpu_{name}_s", own + children, unit="s", own=round(own, 2), children=round(children, 2),
            seconds=seconds, node=node, primary=node == made.primary, **more,
        )  # fmt: skip


def settle(made: Site, networks: Sequence[Network]) -> None:
    """Wait until every node has every network as it is wanted."""

    def ready() -> bool:
        views = made.client.call("network.list")
        return len(views) == len(networks) and all(view.nodes_ready == view.nodes == len(made.nodes) for view in views)

    wait_until("every node has every network", ready, deadline_s=LONG_S)


def takeover(made: Site, count: int, cuts: int) -> None:
    """Loss of guests while the gateways move, with one network and with many."""
    networks: list[Network] = []
    for total in sorted({1, count}):
        log = Log(made.sandbox, made.primary)
        networks += made.add(range(len(networks), total), gateway=True)
        log.wait(STARTED, total - (1 if total > 1 else 0))
        settle(made, networks)
        watched = networks[:: max(1, -(-total // WATCHED))]
        a, b, c = made.nodes
        made.make_primary(a)
        with guests(made, [(c, network, 20) for network in watched]) as ends:
            for old, new in ((a, b), (b, a)):
                move(made, ends, watched, total, [new], "planned", partial(made.make_primary, new))
                note(f"{total} gateways moved from {old} to {new}")
            for _ in range(cuts):
                move(made, ends, watched, total, [b, c], "power_cut", partial(made.sandbox.power_cut, a))
                stage(made, a, "recovered")  # before, the node would be switched off again while it boots
                made.sandbox.power_on(a)
                made.sandbox.wait_ready([a])
                stage(made, a, "returned")
                made.sandbox.pvc("node", "ready", a)
                settle(made, networks)
                made.make_primary(a)
                settle(made, networks)


def stage(made: Site, node: str, wanted: str) -> None:
    """Wait for a stage of a node's fencing."""
    wait_until(
        f"{node}: {wanted}",
        lambda: made.sandbox.pvc.json("fence", "info", node)["record"]["stage"] == wanted,
        deadline_s=LONG_S,
    )


def move(
    made: Site, ends: Sequence[Guest], networks: Sequence[Network], total: int, to: Sequence[str], name: str,
    act: Callable[[], None],
) -> None:  # fmt: skip
    """Have the gateways move to one of some nodes; tell what guests saw, and when all were there."""
    logs = [Log(made.sandbox, node) for node in to]
    with contextlib.ExitStack() as ending:
        inner = [ending.enter_context(Pings(end, net.address(1))) for end, net in zip(ends, networks, strict=True)]
        outer = [ending.enter_context(Pings(end, INTERNET)) for end in ends]
        for pings in (*inner, *outer):
            pings.flow()
        begun = now()
        act()
        # Whichever of them it becomes.
        wait_until(
            f"{total} gateways are made again", lambda: any(len(log.told(STARTED)) >= total for log in logs),
            deadline_s=LONG_S,
        )  # fmt: skip
        for pings in (*inner, *outer):
            pings.flow()
        (taken,) = [log.wait(STARTED, total) - begun for log in logs if len(log.told(STARTED)) >= total]
        first = min(moment for log in logs for moment in log.told(STARTED).values()) - begun
        gaps = [[pings.seen().longest_gap_s for pings in kind] for kind in (inner, outer)]
    more = {"timing": TIMING} if name == "power_cut" else {}
    for what, found in zip(("gateway", "outside"), gaps, strict=True):
        tell(
            f"{name}_{what}_gap_s", statistics.median(found), unit="s", best=round(min(found), 3),
            worst=round(max(found), 3), guests=len(found), networks=total, guest=KIND, **more,
        )  # fmt: skip
    tell(f"{name}_all_taken_s", taken, unit="s", first_s=round(first, 3), networks=total, **more)


def migration(made: Site, moves: int) -> None:
    """Pings lost of a guest that is moved, as seen from a third node."""
    a, b, c = made.nodes
    (network,) = made.add([900], gateway=True)
    settle(made, [network])
    linux, file = tiny_linux(), made.sandbox.shared / "moved.yml"
    nic = {"network": network.name, "addresses": [network.address(30)]}
    kernel = {"kernel": str(linux.kernel), "initrd": str(linux.initrd), "cmdline": linux.command_line(dhcp=1)}
    file.write_text(
        yaml.safe_dump({"name": "moved", "memory": LINUX_MEMORY_MIB, "direct_kernel": kernel, "nics": [nic]})
    )
    made.sandbox.pvc("vm", "define", str(file), "--node", a, "--start")
    with guests(made, [(c, network, 20)]) as ends:
        lost, gaps, downtimes = [], [], []
        for number in range(moves):
            with Pings(ends[0], network.address(30)) as pings:
                pings.first(deadline_s=180.0)
                pings.flow()
                made.sandbox.pvc("vm", "move", "moved", "--node", (b, a)[number % 2])
                pings.flow()
                lost.append(pings.seen().lost)
                gaps.append(pings.seen().longest_gap_s)
            done = made.sandbox.pvc.json("vm", "info", "moved")["last_migration"]
            if not (done["ok"] and done["method"] == "live"):
                raise SystemExit(f"the guest was not moved live: {done}")
            downtimes.append(done["downtime_ms"])
    tell("migration_lost_pings", statistics.median(lost), each=lost, interval_ms=10, guest="QEMU, emulated")
    tell("migration_gap_s", statistics.median(gaps), unit="s", worst=round(max(gaps), 3), downtime_ms=downtimes)
    made.sandbox.pvc("vm", "remove", "moved", "--force", "--yes")
    made.remove()


def tell_times(name: str, values: Sequence[float], **more: object) -> None:
    """Print the median and the worst of some times."""
    tell(name, statistics.median(values), unit="s", worst=round(max(values), 3), runs=len(values), **more)


@contextmanager
def part(name: str) -> Iterator[None]:
    """Say how long a part took, and how busy the machine was."""
    note(name)
    begun, before = time.monotonic(), os.getloadavg()[0]
    yield
    tell(f"{name}_took", time.monotonic() - begun, unit="s", load=[round(before, 1), round(os.getloadavg()[0], 1)])


PARTS = ("adds", "many", "takeover", "migration")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, with commas: {', '.join(PARTS)}")
    parser.add_argument("--networks", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5, help="of adds and of migrations")
    parser.add_argument("--cuts", type=int, default=1, help="of the primary's power, with 1 network and with all")
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds without changes; 60 are one resync interval")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"argument --only: there is no part {', '.join(sorted(unknown))}")
    if not 1 <= options.networks <= 2000 or options.runs < 1 or options.cuts < 0:
        parser.error("there must be 1 to 2000 networks, and at least 1 run")
    if set(wanted) - {"takeover"}:
        with site(timing=PATIENT) as made:
            for name, measure, amount in (
                ("adds", adds, options.runs), ("migration", migration, options.runs), ("many", partial(many, quiet_s=options.quiet), options.networks),
            ):  # fmt: skip
                if name in wanted:
                    with part(name):
                        measure(made, amount)
    if "takeover" in wanted:
        with site(bmc=True, timing=TIMING) as made, part("takeover"):
            takeover(made, options.networks, options.cuts)


if __name__ == "__main__":
    main()
