"""`pvc vm log` and `console`: read from the node that has the guest."""

import socket
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from pvc_core.cli.complete import VM
from pvc_core.cli.session import Session, pass_session
from pvc_core.client.service import LogPart, ServiceRefused
from pvc_core.model.errors import InvalidRequest, NotFound, Unavailable
from pvc_core.ops.vm_views import VmQuery, VmView, vm_info

if TYPE_CHECKING:
    from pvc_core.cli.raw_terminal import Terminal

_POLL_S: Final = 0.5
_LOOK_S: Final = 2.0
"""How often it is checked whether the VM went to another node."""
_AFTER_MOVE_LINES: Final = 20
_COME_BACK_S: Final = 60.0
"""How long a console waits for a guest that is moved or started again."""


def _place(session: Session, vm: str) -> tuple[VmView, str]:
    """Return a VM and the node that has its console; raise InvalidRequest when it never had a node."""
    found = vm_info(session.client.ops, VmQuery(vm=vm))
    node = found.view.running_on or (found.status.node if found.status else None) or found.view.node
    if node is None:
        raise InvalidRequest(f"VM {found.view.name} has never been on a node, so it has no console log")
    return found.view, node


@click.command("log")
@click.argument("vm", type=VM)
@click.option(
    "-l", "--lines", type=click.IntRange(min=0), default=200, show_default=True, help="How many of the last lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what it writes from now on; Ctrl-C ends.")
@pass_session
def log(session: Session, vm: str, lines: int, follow: bool) -> None:
    """Show what a VM wrote to its serial console."""
    view, node = _place(session, vm)
    part = session.client.service(node).console_tail(view.id, lines)
    _write(part.data)
    if follow:
        try:
            _follow(session, view, node, part.next_offset)
        except KeyboardInterrupt:
            # The usual way to end it, so not an error; the shell's prompt gets a line of its own.
            if sys.stdout.isatty():
                session.out.text("")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _follow(session: Session, view: VmView, node: str, offset: int) -> None:
    service = session.client.service(node)
    looked = time.monotonic()
    while True:
        try:
            part = service.console_log(view.id, offset=offset)
        except (Unavailable, NotFound):
            part = LogPart(b"", offset)
        _write(part.data)
        offset = part.next_offset
        if part.data:
            continue
        time.sleep(_POLL_S)
        if time.monotonic() - looked < _LOOK_S:
            continue
        looked = time.monotonic()
        try:
            _, now = _place(session, view.id)
        except Unavailable:
            continue
        if now == node:
            continue
        try:
            there = session.client.service(now)
            part = there.console_tail(view.id, _AFTER_MOVE_LINES)
        except (Unavailable, NotFound):
            continue  # not yet: a guest that starts there has no log before its hypervisor opens one
        session.out.note(f"pvc: VM {view.name} is on {now} now")
        service, node, offset = there, now, part.next_offset
        _write(part.data)


@click.command("console")
@click.argument("vm", type=VM)
@pass_session
def console(session: Session, vm: str) -> None:
    """Connect to the serial console of a VM; Ctrl-] ends it."""
    from pvc_core.cli.raw_terminal import Terminal

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest("a console needs a terminal; to read what the VM wrote use: pvc vm log")
    view, node = _place(session, vm)
    if view.running_on is None:
        raise InvalidRequest(
            f"VM {view.name} is {view.state}, so there is no console; start it with: pvc vm start {view.name}"
        )
    connection, said = session.client.service(node).console(view.id)
    session.out.note(f"Connected to VM {view.name} on {node}; Ctrl-] ends.")
    with Terminal() as terminal:
        while True:
            terminal.write(said)
            if terminal.relay(connection):
                break
            # The node ended it: the guest stopped, is started again, or moved to another node.
            found = _reconnect(session, view, terminal)
            if found is None:
                break
            node, connection, said = found
            terminal.write(f"\r\n[pvc: connected again, VM {view.name} is on {node}]\r\n".encode())
    session.out.note(f"\nConnection to VM {view.name} ended.")


def _reconnect(session: Session, view: VmView, terminal: "Terminal") -> tuple[str, socket.socket, bytes] | None:
    """Return the console again, wherever the VM is now; None when it is off, or not there within some seconds.

    Also None when the person pressed the escape meanwhile.
    """
    deadline = time.monotonic() + _COME_BACK_S
    while time.monotonic() < deadline:
        if terminal.pause(_POLL_S):
            return None
        try:
            now, node = _place(session, view.id)
            if now.power != "running":
                return None
            return node, *session.client.service(node).console(view.id)
        except NotFound:
            return None
        except (Unavailable, ServiceRefused):
            continue  # not yet: the target of a move reports a moment after the guest has come
    return None
