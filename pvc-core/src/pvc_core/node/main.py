"""``pvcnoded``: the daemon's process."""

import argparse
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from pvc_core.config.environment import node_file
from pvc_core.config.load import explain, load_node_config, node_info
from pvc_core.config.schema import NodeConfig
from pvc_core.hypervisor.api import Hypervisor
from pvc_core.model.errors import PvcError
from pvc_core.node import logs
from pvc_core.node.daemon import STOP_S, Daemon, Outside, new_queue
from pvc_core.node.machine import machine_word
from pvc_core.node.notify import ServiceManager
from pvc_core.node.plugin_store import PluginStore
from pvc_core.node.rundir import RunDirectory
from pvc_core.node.workqueue import WorkQueue
from pvc_core.plugin.errors import ConfigError
from pvc_core.runtime.start import load_plugins
from pvc_core.store import schema
from pvc_core.store.connect import open_store
from pvc_core.store.zookeeper import ZooKeeperStore

log = logging.getLogger("pvc_core.node.main")  # by its name also under `python -m`

EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h: starting again is useless until somebody changed something."""

_GARBAGE_THRESHOLD: Final = 10_000
"""New objects after which garbage is looked for; with Python's 700 that is half of the time that a listing of 1,000 devices takes."""

_PATIENCE: Final = 0.1
"""Part of the lease time for which a call waits for a lost connection: no reconciler may hang on it for long."""
_LOOK_S: Final = 1.0
_COMPLAIN_S: Final = 15.0


class Signals:
    """The signals the daemon obeys, as events for the main thread."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.woken = threading.Event()
        self.reload = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        # Never killed by a console whose client went away.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stop.set()
        self.woken.set()

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.reload = True
        self.woken.set()


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon until SIGTERM; returns the exit status: 0, 1, or 78 for a wrong configuration."""
    parser = argparse.ArgumentParser(prog="pvcnoded", description="The node daemon of PVC.")
    parser.add_argument("--config", "-c", metavar="FILE", help="pvcnoded.yml")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    options = parser.parse_args(arguments)
    path = node_file(options.config)
    try:
        config = load_node_config(path)
    except ConfigError as error:
        sys.stderr.write(f"pvcnoded: {error}\n")
        return EXIT_CONFIG
    if options.check:
        return 0
    # Stacks of all threads on a crash, on SIGUSR1, and when the orderly stop takes too long.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    gc.set_threshold(_GARBAGE_THRESHOLD)
    logs.configure(config.logging.level, config.logging.format, journal="JOURNAL_STREAM" in os.environ)
    try:
        return _run(path, config, Signals())
    except ConfigError as error:
        log.error("configuration-wrong error=%s", error)
        return EXIT_CONFIG
    except PvcError as error:
        log.error("daemon-failed error=%s", error)
        return 1


def _run(path: str, config: NodeConfig, signals: Signals) -> int:
    manager = ServiceManager()
    info = node_info(config)
    log.info("daemon-starting node=%s role=%s pid=%d config=%s", info.name, info.role, os.getpid(), path)
    _make_directories(config)
    queue = new_queue()
    run_directory = RunDirectory(Path(config.node.run_directory))
    machine = machine_word(Path(config.node.state_directory))
    store = open_store(config.cluster, config.timing.lease, patience_s=config.timing.lease * _PATIENCE)
    with _closing("store", store.close):
        hypervisor = _open_hypervisor(config)
        with _closing("hypervisor", hypervisor.close):
            access = PluginStore(store)
            drivers = load_plugins(config, info, _waker(queue, info.name), explain=explain(path), access=access)
            with _closing("plugins", drivers.close):
                # Networks of this host, by which the store is reached, may be a plugin's business.
                drivers.notify_and_wait("node_starting", node=info.name)
                if not _connect(store, config, signals, manager):
                    return 0
                outside = Outside(store, hypervisor, drivers, machine, run_directory, run_directory.succeed(), manager)
                daemon = Daemon(config, info, queue, outside)
                access.bind(daemon.agent.lease.guard)
                daemon.agent.on_lease(lambda _: signals.woken.set())
                _limit_lease(daemon, store, config)
                daemon.start()
                _watch(daemon, path, signals, manager)
                daemon.stop()
    return 0


def _make_directories(config: NodeConfig) -> None:
    node = config.node
    for key, mode in (
        ("state_directory", 0o755),
        ("run_directory", 0o755),
        ("console_directory", 0o711),
        ("upload_directory", 0o700),
    ):
        path = Path(getattr(node, key))
        try:
            # Consoles' logs: QEMU's user must get through, nobody needs to list them.
            path.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"node.{key}: cannot make {path}: {error.strerror}") from error


def _connect(store: ZooKeeperStore, config: NodeConfig, signals: Signals, manager: ServiceManager) -> bool:
    """Wait for the state store and make its base; False when the daemon shall stop before that was possible."""
    complained = -_COMPLAIN_S
    while not signals.stop.is_set():
        try:
            store.wait_connected(_LOOK_S)
            schema.initialise(store, name=config.cluster.name)
        except PvcError as error:
            manager.alive()
            if time.monotonic() - complained >= _COMPLAIN_S:
                complained = time.monotonic()
                log.warning("store-not-ready error=%s action=retry", error)
                manager.waiting(f"waiting for the state store: {error}")
            signals.stop.wait(_LOOK_S)
        else:
            return True
    return False


def _limit_lease(daemon: Daemon, store: ZooKeeperStore, config: NodeConfig) -> None:
    granted = store.session_timeout_s
    if granted < config.timing.lease:
        log.warning("lease-shortened wanted_s=%g granted_s=%g by=zookeeper", config.timing.lease, granted)
        daemon.agent.lease.limit(granted)


def _watch(daemon: Daemon, path: str, signals: Signals, manager: ServiceManager) -> None:
    """The main thread's work: signals, and the service manager's watchdog."""
    pause = min(_LOOK_S, manager.watchdog_s / 3) if manager.watchdog_s else _LOOK_S
    while not signals.stop.is_set():
        daemon.look_after()
        signals.woken.wait(pause)
        signals.woken.clear()
        if signals.reload:
            signals.reload = False
            _reload(daemon, path, manager)
    faulthandler.dump_traceback_later(STOP_S + 2.0, exit=True)


def _reload(daemon: Daemon, path: str, manager: ServiceManager) -> None:
    """Read the file again: the log level takes effect at once, all else at the next start."""
    if daemon.ready:
        manager.reloading(time.monotonic())
    try:
        config = load_node_config(path)
    except ConfigError as error:
        log.error("reload-refused error=%s", error)
    else:
        logs.set_level(config.logging.level)
        daemon.serve()
        log.info("reloaded config=%s level=%s", path, config.logging.level)
    if daemon.ready:
        manager.ready("reloaded")


def _waker(queue: WorkQueue, node: str) -> Callable[[str, str], None]:
    """Return what plugins call to have core look at something again."""

    def wake(kind: str, id_: str) -> None:
        queue.add(kind, id_)
        if (kind, id_) == ("node", node):
            # What works here has changed: say so, and look at what waited for it.
            queue.add("publish", "")
            queue.add("resync", "")

    return wake


def _open_hypervisor(config: NodeConfig) -> Hypervisor:
    try:
        from pvc_core.hypervisor.libvirt import LibvirtHypervisor
    except ImportError as error:
        raise ConfigError(
            f"this host cannot run guests: {error}; install libvirt-python (pip install 'pvc-core[node]')"
        ) from error
    return LibvirtHypervisor(
        config.hypervisor.uri,
        migration_uri=config.hypervisor.migration_uri,
        accelerator=config.node.accelerator,
        run_directory=config.node.run_directory,
        memory_mib=config.node.memory_mib,
        keepalive_s=config.timing.keepalive,
    )


@contextmanager
def _closing(what: str, close: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            close()
        except Exception:
            # The next thing must be closed all the same.
            log.exception("close-failed what=%s", what)


if __name__ == "__main__":
    sys.exit(main())
