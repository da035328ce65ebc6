"""From the configuration to a store."""

import ssl
from pathlib import Path

from pvc_core.config.schema import ClusterSection, StoreAuth, Tls
from pvc_core.plugin.errors import ConfigError
from pvc_core.store.zookeeper import Login, ZooKeeperStore
from pvc_core.store.zookeeper_client import server_name


def open_store(
    cluster: ClusterSection,
    lease_s: float,
    *,
    wait_s: float | None = None,
    patience_s: float | None = None,
) -> ZooKeeperStore:
    """Return a store on the cluster's coordinators, with sessions of ``lease_s`` seconds.

    ``wait_s``: wait so long for the first connection and raise StoreUnavailable, naming the servers, or
    StoreRefused; None returns at once, and the store connects in the background.  ``patience_s``: how
    long a call waits for a lost connection to come back; None: ``lease_s``.

    Raises ConfigError for a password or TLS file that cannot be used.
    """
    settings = cluster.zookeeper
    store = ZooKeeperStore(
        [server_name(member.address, settings.port) for member in cluster.coordinators],
        session_timeout_s=lease_s,
        auth=None if settings.auth is None else read_login(settings.auth),
        tls=None if settings.tls is None else tls_context(settings.tls),
        patience_s=patience_s,
    )
    if wait_s is not None:
        try:
            store.wait_connected(wait_s)
        except BaseException:
            store.close()
            raise
    return store


def read_login(auth: StoreAuth) -> Login:
    """Return the login with the password from its file, which only its owner may be able to read."""
    path = Path(auth.password_file)
    try:
        mode = path.stat().st_mode
        password = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cluster.zookeeper.auth.password_file: cannot read {path}: {error}") from error
    if mode & 0o077:
        raise ConfigError(
            f"cluster.zookeeper.auth.password_file: {path} is open to others (mode {mode & 0o777:04o}): chmod 0600 it"
        )
    if not password:
        raise ConfigError(f"cluster.zookeeper.auth.password_file: {path} is empty")
    return Login(auth.username, password)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Return a client context that trusts the given authority only, and checks that a server has the address it is at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(tls.ca)
    except OSError as error:
        raise ConfigError(f"cluster.zookeeper.tls.ca: cannot use {tls.ca}: {error}") from error
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        raise ConfigError(
            f"cluster.zookeeper.tls.certificate and .key: cannot use {tls.certificate} with {tls.key}: {error}"
        ) from error
    return context
