"""How a real ZooKeeper server is run for tests: its files and its command line.  Debian's package ``zookeeper``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import Struct

from pvc_core.store.zookeeper import Login

_JARS: Final = Path("/usr/share/java")
# The manifest of Debian's jar forgets netty-codec and netty-resolver, without which every TLS connection fails.
_CLASS_PATH: Final = ":".join(
    str(_JARS / f"{name}.jar")
    for name in ("zookeeper", "netty-codec", "netty-resolver", "netty-transport-native-unix-common", "slf4j-simple")
)


class Member(NamedTuple):
    """A server of an ensemble and where it listens."""

    id: int
    address: str
    client_port: int
    quorum_port: int
    election_port: int


class ServerTls(Struct, frozen=True, kw_only=True):
    """PEM files of a server; ``identity`` has its private key and its certificate."""

    identity: Path
    ca: Path


class ServerOptions(Struct, frozen=True, kw_only=True):
    """What differs between ensembles.  The defaults are small, quick and forgetful: for tests only."""

    tick_ms: int = 250
    sync_ticks: int = 6
    """A leader or follower that is silent for so many ticks is given up."""
    heap_mib: int = 64
    fsync: bool = False
    login: Login | None = None
    """Clients may log in as this user."""
    login_required: bool = False
    """Sessions without a login are closed."""
    tls: ServerTls | None = None
    """The client port speaks TLS only, and demands a certificate of the same authority."""


def write_server(
    directory: Path, server: int, members: Sequence[Member], options: ServerOptions | None = None
) -> list[str]:
    """Write the files of server ``server`` into ``directory`` and return the command line that runs it.

    Prefix the command line to run it elsewhere, such as in a network namespace.  One member means
    standalone.  Sessions may be 2 ticks to 60 s long.
    """
    options = options or ServerOptions()
    me = next(member for member in members if member.id == server)
    (directory / "data").mkdir(parents=True, exist_ok=True)
    lines = [
        f"tickTime={options.tick_ms}",
        f"initLimit={max(20, 20_000 // options.tick_ms)}",
        f"syncLimit={options.sync_ticks}",
        "maxSessionTimeout=60000",
        f"dataDir={directory}/data",
        f"clientPortAddress={me.address}",
        f"{'clientPort' if options.tls is None else 'secureClientPort'}={me.client_port}",
        "maxClientCnxns=0",
        "admin.enableServer=false",
        "4lw.commands.whitelist=srvr",
        # Otherwise each server writes 64 MiB before its first transaction.
        "preAllocSize=2048",
        # Once an hour: an ensemble may live for days in a sandbox.
        "autopurge.snapRetainCount=3",
        "autopurge.purgeInterval=1",
    ]
    if options.tls is not None:
        lines[lines.index(f"clientPortAddress={me.address}")] = f"secureClientPortAddress={me.address}"
        lines += [
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory",
            f"ssl.keyStore.location={options.tls.identity}",
            "ssl.keyStore.type=PEM",
            f"ssl.trustStore.location={options.tls.ca}",
            "ssl.trustStore.type=PEM",
            "ssl.clientAuth=need",
            # The check of clients' host names; what a client presents is a node's certificate.
            "ssl.hostnameVerification=false",
        ]
    if options.login is not None:
        lines.append("authProvider.sasl=org.apache.zookeeper.server.auth.SASLAuthenticationProvider")
        (directory / "jaas.conf").write_text(
            "Server { org.apache.zookeeper.server.auth.DigestLoginModule required "
            f'user_{options.login.username}="{options.login.password}"; }};\n'
        )
    if len(members) > 1:
        (directory / "data/myid").write_text(f"{server}\n")
        lines += [f"server.{m.id}={m.address}:{m.quorum_port}:{m.election_port}" for m in members]
    config = directory / "zoo.cfg"
    config.write_text("".join(f"{line}\n" for line in lines))
    return [
        "java",
        # The smallest, and the quickest to start.
        "-Xms16m",
        f"-Xmx{options.heap_mib}m",
        "-Xss512k",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:MaxMetaspaceSize=64m",
        "-XX:ReservedCodeCacheSize=24m",
        f"-Dzookeeper.forceSync={'yes' if options.fsync else 'no'}",
        "-Dzookeeper.jmx.log4j.disable=true",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        *([f"-Djava.security.auth.login.config={directory}/jaas.conf"] if options.login else []),
        *(["-Dzookeeper.sessionRequireClientSASLAuth=true"] if options.login_required else []),
        "-cp",
        _CLASS_PATH,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        str(config),
    ]
