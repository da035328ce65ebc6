"""A worker: does one call after the other until its input ends."""

import os
import select
import sys
import threading
import time
import traceback
from typing import Any, Final

import msgspec

from pvc_ceph.protocol import HEAD, Call, Connected, Done, Failed, Open, Proceed, Progress, failure
from pvc_ceph.worker import clients
from pvc_ceph.worker.calls import CALLS
from pvc_ceph.worker.ceph import Cluster
from pvc_core.plugin import Cancelled, DriverError

_TELL_S: Final = 0.25
"""Least pause between two reports of progress."""
_ORPHANED_S: Final = 1.0


class Channel:
    """The driver's end of the pipes."""

    def __init__(self, source: int, target: int) -> None:
        self._in: Final = source
        self._out: Final = target
        self._told = 0.0

    def receive(self, type_: type[Any]) -> Any:
        """Return the next message; None at the end."""
        head = self._read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        (length,) = HEAD.unpack(head)
        return msgspec.msgpack.decode(self._read(length), type=type_)

    def send(self, message: msgspec.Struct) -> None:
        """Send a message."""
        body = msgspec.msgpack.encode(message)
        view = memoryview(HEAD.pack(len(body)) + body)
        while view:
            view = view[os.write(self._out, view) :]

    def progress(self, done: float) -> bool:
        """Tell of a call's progress, now and then; return whether it shall stop."""
        now = time.monotonic()
        if 0.0 < done < 1.0 and now - self._told < _TELL_S:
            return False
        self._told = now
        self.send(Progress(min(max(done, 0.0), 1.0)))
        answer = self.receive(Proceed)
        return answer is None or answer.stop

    def end_with_driver(self) -> None:
        """End this process when the driver's end is closed, whatever it waits for."""
        poll = select.poll()
        poll.register(self._in, 0)  # POLLHUP is always told
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            time.sleep(_ORPHANED_S)
        time.sleep(_ORPHANED_S)  # an idle worker has ended by then, in order
        os._exit(1)

    def _read(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length and (part := os.read(self._in, length - len(data))):
            data += part
        return bytes(data)


def main() -> None:
    """Serve the driver on standard input and output."""
    # Libraries that print would otherwise do so between the messages.
    channel = Channel(os.dup(0), os.dup(1))
    os.dup2(2, 1)
    threading.Thread(target=channel.end_with_driver, daemon=True).start()
    settings = channel.receive(Open)
    if settings is None:
        return
    cluster = Cluster(settings, lambda address: channel.send(Connected(address)))
    while (call := channel.receive(Call)) is not None:
        channel.send(_answer(cluster, call, channel))
    sys.stderr.flush()
    # Not through the libraries' clean-up: it waits for OSDs that may be gone.
    os._exit(0)


def _answer(cluster: Cluster, call: Call, channel: Channel) -> Done | Failed:
    try:
        if call.dead:
            clients.block(cluster, call.dead, clients.INSTANCE_S)
        return Done(CALLS[call.name].run(cluster, call.arguments, channel.progress))
    except (DriverError, Cancelled) as error:
        return failure(error)
    except Exception as error:
        # Whatever it is, the driver must hear of it; its traceback goes to the node's log.
        text = "".join(traceback.format_exception(error))
        return Failed(
            kind="DriverError", message=f"{type(error).__name__} in {call.name}: {error}\n{text}", defect=True
        )


main()
