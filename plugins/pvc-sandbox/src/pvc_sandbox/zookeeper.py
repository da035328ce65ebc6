"""The ZooKeeper server of a coordinator: Debian's package, run by hand.

Checked with ZooKeeper 3.8.0 and Java 17.  Administrator's guide: https://zookeeper.apache.org/doc/r3.8.0/zookeeperAdmin.html
"""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pvc_sandbox.control import Service
from pvc_sandbox.files import write_atomically
from pvc_sandbox.layout import Layout
from pvc_sandbox.namespaces import NAMED, entered

PORT: Final = 2181
SERVICE: Final = "zookeeper"
_QUORUM_PORT: Final = 2888
_ELECTION_PORT: Final = 3888
_ANSWER_DEADLINE_S: Final = 1.0

_JARS: Final = Path("/usr/share/java")
# The manifest of Debian's jar forgets two of Netty's: with TLS every connection would then fail.
_CLASS_PATH: Final = ":".join(
    str(_JARS / f"{name}.jar")
    for name in ("zookeeper", "netty-codec", "netty-resolver", "netty-transport-native-unix-common", "slf4j-simple")
)
_JAVA: Final = (
    "java", "-Xms16m", "-Xmx96m", "-Xss512k", "-XX:MaxMetaspaceSize=64m", "-XX:ReservedCodeCacheSize=24m",
    # The smallest and the quickest to start; a sandbox has three of them on few processors.
    "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
    # A simulated power cut does not lose what the machine's kernel has taken, so nothing needs to be flushed.
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.jmx.log4j.disable=true", "-Dzookeeper.extendedTypesEnabled=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info", "-Dorg.slf4j.simpleLogger.showDateTime=true",
)  # fmt: skip

_CONFIG: Final = """\
tickTime=500
initLimit=20
# a leader that is silent for 3 s is given up
syncLimit=6
minSessionTimeout=1000
maxSessionTimeout=60000
dataDir={state}/data
dataLogDir={state}/log
clientPort={port}
clientPortAddress={address}
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr,ruok,mntr
autopurge.snapRetainCount=3
autopurge.purgeInterval=1
# several servers share one disk: do not write 64 MiB ahead
preAllocSize=2048
"""


def configure(layout: Layout, number: int, coordinators: Sequence[int]) -> Service:
    """Write the files of coordinator ``number`` and return its daemon; ``coordinators`` are the numbers of all."""
    state = layout.node_state(number) / "zookeeper"
    for directory in ("data", "log"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    text = _CONFIG.format(state=state, port=PORT, address=layout.cluster_address(number))
    if len(coordinators) > 1:
        write_atomically(state / "data/myid", f"{number}\n")
        text += "".join(
            f"server.{other}={layout.cluster_address(other)}:{_QUORUM_PORT}:{_ELECTION_PORT}\n"
            for other in coordinators
        )
    write_atomically(state / "zoo.cfg", text)
    return Service(
        name=SERVICE,
        argv=(*_JAVA, "-cp", _CLASS_PATH, "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(state / "zoo.cfg")),
        log=str(layout.node_state(number) / "log/zookeeper.log"),
    )


def mode(layout: Layout, number: int) -> str:
    """Return the server's part in the ensemble: leader, follower or standalone; empty while it serves nobody.

    A server answers only while it is part of a quorum.
    """
    for line in _ask(layout, number, b"srvr").splitlines():
        if line.startswith("Mode: "):
            return line.removeprefix("Mode: ")
    return ""


def _ask(layout: Layout, number: int, word: bytes) -> str:
    with contextlib.suppress(OSError):
        with entered(NAMED / layout.switch):
            connection = socket.create_connection((layout.cluster_address(number), PORT), _ANSWER_DEADLINE_S)
        with connection:
            connection.sendall(word)
            received = bytearray()
            while part := connection.recv(4096):
                received += part
            return received.decode("utf-8", "replace")
    return ""
