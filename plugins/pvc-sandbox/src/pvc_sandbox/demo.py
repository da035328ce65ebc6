"""``./dev demo``: a cluster of three nodes on this machine, and what it can do, command by command.

Every step is an ordinary ``pvc`` command that is printed before it runs, so that it can be repeated by hand.  What
is there already, from a demo that was stopped or from an earlier one, is used as it is.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import yaml

from pvc_core.model.errors import PvcError
from pvc_core.model.units import format_duration
from pvc_sandbox.counted import counted
from pvc_sandbox.files import write_atomically
from pvc_sandbox.images import LINUX_MEMORY_MIB, tiny_linux
from pvc_sandbox.loss import follow_loss
from pvc_sandbox.ping import Ping, Pinged, answers
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.screen import Stopwatch, indented, say, timed
from pvc_sandbox.waiting import wait_until

NETWORK: Final = "lan"
POOL: Final = "images"
VM: Final = "web1"
_GUEST: Final = 10
"""Last octet of the guest's address."""
_PATIENCE_S: Final = 120.0
_LAST_RUNS: Final = 6
_ENOUGH_PINGS: Final = 20
"""Answers before and after a move, so that the gap between is the move's."""


class Demo:
    """One run of the demo on a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._step = 0

    def run(self) -> None:
        """Do all steps.  Raises PvcError where one does not work."""
        begun = time.monotonic()
        self._cluster()
        self._networks_and_storage()
        self._virtual_machine()
        self._live_migration()
        self._evacuation()
        self._failover()
        self._return()
        say("")
        say(f"All of it took {format_duration(time.monotonic() - begun)}. The cluster stays up:")
        say(f"    export PVC_CONFIG={self._sandbox.client_config} PVC_SANDBOX={self._sandbox.name}")
        say(f"    export PATH={os.path.dirname(sys.executable)}:$PATH")  # noqa: PTH120 - as the shell writes it
        say("    pvc node list; pvc vm list; pvc vm console web1; pvc sandbox status")
        say("or just: ./dev shell. To remove it: ./dev down")

    def _cluster(self) -> None:
        self._title("Three nodes, each with its own libvirtd, ZooKeeper server, pvcnoded and BMC")
        say(f"    $ pvc sandbox up --name {self._sandbox.name} --nodes 3")
        with timed():
            self._sandbox.up(nodes=3, bmc=True, report=indented)
        self._wait_returned()
        for row in self._sandbox.pvc.rows("node", "list"):
            spec = self._sandbox.pvc.json("node", "info", row["name"])["spec"]
            if spec["scheduling"] != "ready":  # an earlier demo was stopped in the middle
                self._pvc("node", "ready", row["name"])
        self._pvc("node", "list")

    def _networks_and_storage(self) -> None:
        self._title("A network for guests, a pool of image files, a volume")
        self._make("network", NETWORK, ["network", "add", NETWORK, "-d", "bridge", "-p", "device=guest0"])
        path = self._sandbox.shared / POOL
        path.mkdir(exist_ok=True)
        self._make("storage pool", POOL, ["storage", "pool", "add", POOL, "-d", "dir", "-p", f"path={path}"])
        self._make("storage volume", VM, ["storage", "volume", "add", f"{POOL}/{VM}", "16M"])

    def _virtual_machine(self) -> None:
        self._title(f"A virtual machine: Debian's kernel with busybox, {LINUX_MEMORY_MIB} MiB, emulated")
        linux = tiny_linux()
        address = self._sandbox.layout.guest_address(_GUEST)
        definition: dict[str, Any] = {
            "name": VM,
            "memory": LINUX_MEMORY_MIB,
            "direct_kernel": {
                "kernel": str(linux.kernel),
                "initrd": str(linux.initrd),
                "cmdline": linux.command_line(ip=f"{address}/24", disk=1),
            },
            "disks": [{"pool": POOL, "volume": VM}],
            "nics": [{"network": NETWORK}],
        }
        file = self._sandbox.shared / f"{VM}.yml"
        write_atomically(file, yaml.safe_dump(definition, sort_keys=False))
        begun = time.monotonic()
        if not self._names("vm") & {VM}:
            for line in file.read_text().splitlines():
                indented(line)
            self._pvc("vm", "define", str(file), "--start")
        elif self._vm()["state"] != "running":
            self._pvc("vm", "start", VM)
        wait_until(f"ping of {address}", self._answers, deadline_s=_PATIENCE_S, detail=self._where)
        say(f"    {address} answers ping after {format_duration(time.monotonic() - begun)}")
        self._pvc("vm", "list")

    def _live_migration(self) -> None:
        source = self._vm()["running_on"]
        target = next(name for name in self._sandbox.nodes() if name != source)
        self._title(f"Live migration from {source} to {target}, pinged every 20 ms meanwhile")
        with self._pinged("the move"):
            self._pvc("vm", "move", VM, "--node", target)

    def _evacuation(self) -> None:
        node = self._vm()["running_on"]
        self._title(f"{node} is emptied for maintenance, and comes back")
        with self._pinged("the evacuation"):
            self._pvc("node", "flush", node)
        self._pvc("vm", "list")
        with self._pinged("the way home"):
            self._pvc("node", "ready", node)

    def _failover(self) -> None:
        """Cut the power of the VM's node; the VM runs elsewhere, and only there."""
        node, id_ = self._vm()["running_on"], self._vm()["id"]
        self._title(f"The power of {node} is cut: with it the VM, a ZooKeeper server and a daemon")
        self._pvc("fence", "status")
        say(f"    $ pvc sandbox power-cut {node} --name {self._sandbox.name}")
        self._sandbox.power_cut(node)
        watch = Stopwatch()
        watch.tell(f"{node} is dark; nobody is told")
        follow_loss(self._sandbox, node, watch)
        watch.wait(
            f"{VM} runs elsewhere",
            lambda: self._vm()["running_on"] not in (None, node),
            deadline_s=_PATIENCE_S,
            detail=self._where,
        )
        watch.tell(f"{VM} is running on {self._vm()['running_on']}")
        watch.wait(f"{VM} answers ping again", self._answers, deadline_s=_PATIENCE_S, detail=self._where)
        watch.tell(f"{VM} answers ping again")
        self._pvc("vm", "list")
        self._never_twice(id_, node)

    def _never_twice(self, id_: str, lost: str) -> None:
        """Show where the VM counted, once a second, on its disk."""
        new = self._vm()["running_on"]
        runs = wait_until(
            f"{VM} goes on counting",
            lambda: (found := counted(self._sandbox, id_)) and found[-1].node == new and found,
            deadline_s=_PATIENCE_S,
        )
        say(f"    {VM} counts on its disk, once a second. No number was told by two nodes:")
        for run in runs[-_LAST_RUNS:]:
            cut = f"   <- the power of {lost} was cut" if run is runs[-2] else ""
            indented(f"{run.node}  {run.first:>3} to {run.last:>3}{cut}")

    def _return(self) -> None:
        node = next(row["node"] for row in self._sandbox.pvc.rows("fence", "list") if row["active"])
        self._title(f"{node} is repaired, and its VM comes home")
        say(f"    $ pvc sandbox power-on {node} --name {self._sandbox.name}")
        with timed():
            self._sandbox.power_on(node)
            self._sandbox.wait_ready([node])
            self._wait_returned()
        with self._pinged("the way home"):
            self._pvc("node", "ready", node)
        self._pvc("fence", "list")
        self._pvc("cluster", "status")

    def _wait_returned(self) -> None:
        wait_until(
            "nodes that were fenced are back",
            lambda: not any(row["active"] for row in self._sandbox.pvc.rows("fence", "list")),
            deadline_s=_PATIENCE_S,
        )

    def _title(self, text: str) -> None:
        self._step += 1
        say(f"\n{self._step}. {text}")

    def _pvc(self, *arguments: str) -> None:
        say(f"    $ pvc {' '.join(arguments)}")
        with timed():
            for line in self._sandbox.pvc(*arguments).splitlines():
                indented(line)

    def _make(self, kind: str, name: str, arguments: list[str]) -> None:
        if name in self._names(kind):
            say(f"    {kind} {name} is there already")
        else:
            self._pvc(*arguments)

    def _names(self, kind: str) -> set[str]:
        return {row["name"] for row in self._sandbox.pvc.json(*kind.split(), "list")}

    def _vm(self) -> dict[str, Any]:
        found: dict[str, Any] = self._sandbox.pvc.json("vm", "info", VM)["view"]
        return found

    def _answers(self) -> bool:
        return answers(self._sandbox.layout, self._sandbox.layout.guest_address(_GUEST))

    def _where(self) -> str:
        view = self._vm()
        return f"{VM} is {view['state']} on {view['node']}" + (f": {view['reason']}" if view["reason"] else "")

    @contextmanager
    def _pinged(self, what: str) -> Iterator[None]:
        with Ping(self._sandbox.layout, self._sandbox.layout.guest_address(_GUEST)) as ping:
            wait_until("the guest answers ping", lambda: ping.answers() >= _ENOUGH_PINGS, deadline_s=_PATIENCE_S)
            yield
            before = ping.answers()
            wait_until(
                "the guest answers ping", lambda: ping.answers() >= before + _ENOUGH_PINGS, deadline_s=_PATIENCE_S
            )
        say(f"    {_told(ping.result)} during {what}")


def _told(seen: Pinged) -> str:
    gap = format_duration(seen.longest_gap_s)
    return f"{seen.answered} of {seen.asked} pings answered, longest time without an answer {gap},"


def main() -> None:
    """Run the demo; exit status 1 and one line when a step does not work."""
    parser = argparse.ArgumentParser(prog="demo", description="Show what PVC can do, on this machine.")
    parser.add_argument("--name", default="demo", help="name of the sandbox")
    sandbox = Sandbox(parser.parse_args().name)
    try:
        Demo(sandbox).run()
    except KeyboardInterrupt:
        sys.exit("\ndemo: stopped; what is there stays: ./dev demo goes on, ./dev down removes it")
    except (PvcError, OSError) as error:
        sys.exit(f"\ndemo: {error}\nThe cluster stays as it is; look with ./dev shell, remove it with ./dev down")


if __name__ == "__main__":
    main()
