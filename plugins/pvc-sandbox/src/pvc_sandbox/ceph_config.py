"""What Ceph's daemons and clients read: keys, keyrings, ceph.conf; no I/O.

Checked with Ceph 16.2 (Pacific), Debian's.  What a setting is for is said where it is not plain.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Final

MON_PORT: Final = 3300
"""IANA's for version 2 of Ceph's messenger; version 1 is not spoken."""
KEY_BYTES: Final = 16
REPLICAS: Final = 3
_AES: Final = 1
_KEY_HEADER: Final = struct.Struct("<HIIH")
"""Type, seconds and nanoseconds of its making, length: see ``CryptoKey`` in Ceph's src/auth/Crypto.h."""

ADMIN: Final = "client.admin"
ADMIN_CAPS: Final = {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"}
MON_CAPS: Final = {"mon": "allow *"}
MGR_CAPS: Final = {"mon": "allow profile mgr", "osd": "allow *", "mds": "allow *"}
"""As Ceph's manual says for a manager that is deployed by hand."""


def encode_key(secret: bytes, made_ns: int) -> str:
    """Return a cephx key in the form of a keyring, from ``KEY_BYTES`` random bytes and the time of its making."""
    header = _KEY_HEADER.pack(_AES, *divmod(made_ns, 1_000_000_000), len(secret))
    return base64.b64encode(header + secret).decode()


def keyring(entity: str, key: str, caps: Mapping[str, str] | None = None) -> str:
    """Return an entity's part of a keyring."""
    lines = [f"[{entity}]", f"\tkey = {key}"]
    lines += [f'\tcaps {service} = "{allowed}"' for service, allowed in (caps or {}).items()]
    return "\n".join(lines) + "\n"


def mon_address(address: str) -> str:
    """Return the address of a monitor as a monmap and ``mon host`` have it."""
    return f"[v2:{address}:{MON_PORT}]"


def pool_defaults(nodes: int) -> dict[str, str]:
    """Return how many copies a pool has if nobody says otherwise: Ceph's own defaults, or what so many nodes can hold."""
    replicas = min(REPLICAS, nodes)
    return {"osd_pool_default_size": str(replicas), "osd_pool_default_min_size": str(max(1, replicas - 1))}


def configuration(
    *,
    fsid: str,
    network: str,
    monitors: Sequence[str],
    mgr_modules: str,
    logs: str = "",
    keyring_file: str = "",
    run_directory: str = "",
) -> str:
    """Return a ceph.conf for all daemons and clients.

    ``monitors`` are IP addresses, ``network`` is where they and the OSDs are, ``mgr_modules`` the directory of a manager's
    modules.  Where the others are not given, Debian's places hold: ``logs``, the directory in which each daemon has the
    file of its unit; the administrator's ``keyring_file``; ``run_directory`` of sockets.
    """
    elsewhere = {"keyring": keyring_file, "run dir": run_directory}
    first = {
        "fsid": fsid,
        "mon host": ",".join(map(mon_address, monitors)),
        "public network": network,
        **{name: value for name, value in elsewhere.items() if value},
    }
    daemon = {"log file": f"{logs}/ceph-$type@$id.log"} | _DAEMON if logs else _DAEMON
    sections = {
        "global": first | _GLOBAL,
        "client": {"log file": ""},
        "mon": daemon | _MON,
        "mgr": daemon | _MGR | {"mgr module path": mgr_modules},
        "osd": daemon | _OSD,
    }
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in settings.items())]) + "\n"
        for name, settings in sections.items()
    )


_GLOBAL: Final = {
    "ms bind msgr1": "false",
    "ms async op threads": "1",
    # Few placement groups, and for ever as many: splitting them takes time, and looks like a failure.
    "osd pool default pg num": "8",
    "osd pool default pgp num": "8",
    "osd pool default pg autoscale mode": "off",
    # A monitor that hangs is left for another one soon.
    "mon client ping interval": "1",
    "mon client ping timeout": "3",
    "mon client hunt interval": "1",
    "mon client hunt interval max multiple": "2",
    # Monitors judge OSDs by it, and OSDs each other.
    "osd heartbeat grace": "4",
}
_DAEMON: Final = {
    "log max recent": "200",
    "debug rocksdb": "1/5",
}
_MON: Final = {
    "mon cluster log to file": "false",
    # Without it health begins with a warning about clients of before 2021.
    "auth allow insecure global id reclaim": "false",
    "mon allow pool delete": "true",
    "mon allow pool size one": "true",
    "mon warn on pool no redundancy": "false",
    # The "disks" are this machine's, however full it is.
    "mon data avail warn": "2",
    "mon data avail crit": "1",
    # A change waits for others to be proposed with it.
    "paxos propose interval": "0.05",
    "paxos min wait": "0.02",
    "mon tick interval": "1",
    # A monitor that is cut off blocks every change for as long as its lease lasts, twice; the default is 5 s.
    "mon lease": "1",
    "mon election timeout": "1",
    "mon elector ping timeout": "1",
    "mon mgr beacon grace": "10",
    # One witness: in a cluster of two nodes there is no other.
    "mon osd min down reporters": "1",
    "mon osd adjust heartbeat grace": "false",
}
_MGR: Final = {
    "mgr initial modules": "",
    "mgr tick period": "1",
    "mgr stats period": "1",
}
_OSD: Final = {
    "osd heartbeat interval": "1",
    "osd mon report interval": "1",
    # At SIGTERM it waits so long for the monitors' word that it is down.
    "osd mon shutdown timeout": "1",
    "osd op num shards": "2",
    "osd op num threads per shard": "1",
    "osd max pg log entries": "500",
    # One that was marked down often, as in tests of hangs, would leave for good.
    "osd max markdown count": "1000",
    # 1 s at each mkfs.
    "bluestore fsck on mkfs": "false",
    # Whoever closes a device waits for it: 250 ms.
    "bdev aio poll ms": "20",
    # Small caches of a fixed size: a memory target has a floor of 896 MiB, and is nothing but a target.
    "bluestore cache autotune": "false",
    "bluestore cache size": str(32 << 20),
    "rocksdb cache size": str(8 << 20),
    "bluestore rocksdb options": ",".join(
        (
            "compression=kNoCompression",
            "max_write_buffer_number=3",
            "min_write_buffer_number_to_merge=1",
            "recycle_log_file_num=2",
            f"write_buffer_size={8 << 20}",
            "max_background_jobs=1",
        )
    ),
}
