"""What ``pvcnoded.yml`` may hold: facts of this node; what holds for the whole cluster is in the store.

Every field has a description: the reference in ``docs/`` is generated from them.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0)]


class Tls(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """TLS files, PEM."""

    ca: Annotated[str, Meta(description="File with the authority's certificate.")]
    certificate: Annotated[str, Meta(description="File with this node's certificate.")]
    key: Annotated[str, Meta(description="File with this node's private key.")]


class StoreAuth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this node identifies itself to ZooKeeper."""

    username: Annotated[str, Meta(description="User of the SASL (DIGEST-MD5) login.")] = "pvc"
    password_file: Annotated[str, Meta(description="File with the password, mode 0600.")]


class ZooKeeper(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state store."""

    port: Annotated[int, Meta(ge=1, le=65535, description="Client port on the coordinators.")] = 2181
    auth: Annotated[
        StoreAuth | None, Meta(description="Login; every node of the state tree is then closed to others.")
    ] = None
    tls: Annotated[Tls | None, Meta(description="Encrypt connections to ZooKeeper; `port` is then the secure one.")] = (
        None
    )


class Member(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A coordinator."""

    name: Annotated[str, Meta(description="The coordinator's node name.")]
    address: Annotated[str, Meta(description="Its address in the cluster network.")]


class ClusterSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cluster this node belongs to."""

    name: Annotated[str, Meta(description="Name of the cluster.")] = "pvc"
    coordinators: Annotated[
        tuple[Member, ...],
        Meta(min_length=1, description="All coordinators: 1, 3 or 5. They run ZooKeeper and can become primary."),
    ]
    zookeeper: Annotated[ZooKeeper, Meta(description="How the state store is reached.")] = ZooKeeper()


class NodeSection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This node."""

    name: Annotated[str, Meta(description="Name of this node; empty: the host name up to the first dot.")] = ""
    address: Annotated[str, Meta(description="Address of this node in the cluster network: migrations, consoles.")]
    memory_mib: Annotated[
        Annotated[int, Meta(ge=64)] | None,
        Meta(description="Memory of this host in MiB, where the kernel reports it wrongly."),
    ] = None
    reserved_memory_mib: Annotated[int, Meta(ge=0, description="Memory kept for the host itself, in MiB.")] = 1024
    accelerator: Annotated[
        str,
        Meta(
            pattern="^(auto|kvm|tcg)$",
            description="kvm, tcg (emulation: tests only), or auto: kvm where a guest really starts with it.",
        ),
    ] = "auto"
    state_directory: Annotated[str, Meta(description="Lasting files of the daemon.")] = "/var/lib/pvc"
    run_directory: Annotated[str, Meta(description="Files that must not survive a reboot: below `/run`.")] = "/run/pvc"
    console_directory: Annotated[str, Meta(description="Logs of the guests' serial consoles.")] = "/var/log/pvc/console"
    upload_directory: Annotated[
        str, Meta(description="Image files that `pvc storage volume upload` sends here, until they are volumes.")
    ] = "/var/lib/pvc/upload"


class Hypervisor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """libvirt on this node."""

    uri: Annotated[str, Meta(description="libvirt URI of this node's hypervisor.")] = "qemu:///system"
    migration_uri: Annotated[str, Meta(description="URI of another node's libvirt; {address} is replaced.")] = (
        "qemu+tcp://{address}/system"
    )


class Service(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This node's own service: consoles and logs are read through it, and image files are sent."""

    port: Annotated[int, Meta(ge=1, le=65535, description="TCP port on the node's address.")] = 7372
    token_file: Annotated[
        str,
        Meta(
            description="File with the token that clients must present; the same on all nodes. Empty: the service is off."
        ),
    ] = ""


class Timing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations in seconds."""

    lease: Annotated[
        Seconds, Meta(description="A node that is silent for this long has lost its lease (ZooKeeper session timeout).")
    ] = 10.0
    grace: Annotated[Seconds, Meta(description="Pause between a lost lease and the decision to fence.")] = 5.0
    cold_start: Annotated[
        Seconds,
        Meta(
            description="As long after its own start a host lets nodes, whose leases it has not seen, come before it "
            "fences them: after a power cut of the whole site not all are up at the same time."
        ),
    ] = 300.0
    fence_retry: Annotated[
        Seconds, Meta(description="First pause after all ways to fence a node have failed; doubled each time.")
    ] = 5.0
    fence_retry_max: Annotated[Seconds, Meta(description="Longest such pause.")] = 60.0
    fence_check: Annotated[
        Seconds, Meta(description="Each coordinator asks every fence device this often whether it can be used.")
    ] = 60.0
    publish: Annotated[Seconds, Meta(description="Interval of the node's report of facts and usage.")] = 10.0
    resync: Annotated[Seconds, Meta(description="Everything is looked at again this often, without any event.")] = 60.0
    shutdown: Annotated[Seconds, Meta(description="Default time a guest has for an orderly shutdown.")] = 180.0
    restart_backoff: Annotated[
        Seconds, Meta(description="First pause before a crashed guest is started again; doubled each time.")
    ] = 2.0
    restart_backoff_max: Annotated[Seconds, Meta(description="Longest such pause.")] = 300.0
    restart_give_up: Annotated[int, Meta(ge=1, description="Crashes in a row after which a guest is left failed.")] = 6
    stable: Annotated[Seconds, Meta(description="A guest that ran this long is no longer counted as crashing.")] = 60.0
    migration: Annotated[Seconds, Meta(description="A live migration that takes longer is aborted.")] = 600.0
    prepare: Annotated[Seconds, Meta(description="Time the target of a migration has to get ready.")] = 60.0
    unplug: Annotated[
        Seconds,
        Meta(description="A guest that has not let go of a disk for so long is said to keep it; it is asked on."),
    ] = 30.0
    keepalive: Annotated[
        Seconds, Meta(description="libvirt connections are given up after 5 unanswered probes at this interval.")
    ] = 2.0


class Watchdog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Resets this node when it can no longer prove that it holds its lease."""

    device: Annotated[
        str,
        Meta(
            description="Watchdog device such as /dev/watchdog, or the socket of a program that stands in for one. "
            "Empty: none."
        ),
    ] = ""
    timeout: Annotated[
        Annotated[float, Meta(ge=2, le=600)],
        Meta(description="The device resets the node when it is not fed for so many seconds; kernels want whole ones."),
    ] = 8.0


class Logging(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the daemon writes to its standard error (the journal)."""

    level: Annotated[
        str, Meta(pattern="^(debug|info|warning|error)$", description="debug, info, warning or error.")
    ] = "info"
    format: Annotated[
        str,
        Meta(
            pattern="^(text|json)$",
            description="text or json: one line per event with key=value fields, or one JSON object.",
        ),
    ] = "text"


class NodeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    cluster: Annotated[ClusterSection, Meta(description="The cluster this node belongs to.")]
    node: Annotated[NodeSection, Meta(description="This node.")]
    hypervisor: Annotated[Hypervisor, Meta(description="libvirt on this node.")] = Hypervisor()
    service: Annotated[Service, Meta(description="This node's own service.")] = Service()
    timing: Annotated[Timing, Meta(description="Durations.")] = Timing()
    watchdog: Annotated[Watchdog, Meta(description="Self-fencing.")] = Watchdog()
    logging: Annotated[Logging, Meta(description="Logs.")] = Logging()
    plugins: Annotated[
        dict[str, dict[str, Any] | None],
        Meta(
            description="Plugins to load, in call order: name -> its section. One that is not listed is not even imported."
        ),
    ] = {}


class ClientConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the CLI reaches a cluster from elsewhere than a node (`pvc.yml`)."""

    cluster: Annotated[ClusterSection, Meta(description="The cluster.")]
    service: Annotated[Service, Meta(description="The nodes' service.")] = Service()
    network_namespace: Annotated[
        str, Meta(description="Enter this network namespace first (clusters simulated on one machine).")
    ] = ""
