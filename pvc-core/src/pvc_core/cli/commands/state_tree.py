"""`pvc cluster init`, `upgrade`, `protect`, `backup`, `restore`: the state tree as a whole."""

import click

from pvc_core.cli import words
from pvc_core.cli.options import format_option, yes_option
from pvc_core.cli.session import Session, pass_session
from pvc_core.model.errors import InvalidRequest
from pvc_core.ops.backup import BackupView, ClusterBackup, ClusterRestore, cluster_backup, cluster_restore
from pvc_core.store import keys
from pvc_core.store.schema import SCHEMA, initialise
from pvc_core.store.schema import upgrade as upgrade_tree


@click.command("init")
@click.option("--name", help="Name of the cluster; left out: that in the configuration file.")
@format_option
@pass_session
def init(session: Session, name: str | None) -> None:
    """Prepare an empty state store for a new cluster.

    The first node that starts does the same, so this is only needed to choose another name, or to try out
    whether the state store works.  A cluster that is there already is left as it is.
    """
    store = session.client.store
    there = store.get(keys.CLUSTER.path) is not None
    cluster = initialise(store, name=name or session.client.cluster)
    text = "is there already" if there else "is ready for its first node"
    session.out.done(f"cluster {cluster.name} {text}", cluster=cluster)


@click.command("upgrade")
@yes_option
@format_option
@pass_session
def upgrade(session: Session, yes: bool) -> None:
    """Bring the layout of the state tree up to date, when every node has the new version.

    Nodes with an older version cannot work with it afterwards.
    """
    session.confirm(f"Bring the state tree to layout {SCHEMA}? Does every node have this version of PVC?", yes=yes)
    before = upgrade_tree(session.client.store)
    done = f"had layout {before} and now has {SCHEMA}" if before < SCHEMA else f"has layout {before}: nothing to do"
    session.out.done(f"the state tree {done}", before=before, now=max(before, SCHEMA))


@click.command("protect")
@format_option
@pass_session
def protect(session: Session) -> None:
    """Close a state tree to all but the login in the configuration.

    For a tree that was made before logins were switched on; new trees are closed from the start.
    """
    from pvc_core.store.zookeeper import ZooKeeperStore

    store = session.client.store
    if not isinstance(store, ZooKeeperStore):
        raise InvalidRequest("only a state tree in ZooKeeper can be closed to others")
    changed = store.protect("/pvc")
    session.out.done(f"the state tree is closed to others ({changed} nodes of it were open)", changed=changed)


def _summary(view: BackupView) -> str:
    return f"{view.documents} documents, {words.size(view.bytes)}"


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@format_option
@pass_session
def backup(session: Session, file: str, overwrite: bool) -> None:
    """Write the state tree (definitions and states, not the contents of disks) to a FILE on this machine."""
    view = cluster_backup(session.client.ops, ClusterBackup(path=file, overwrite=overwrite))
    session.out.done(f"cluster {view.cluster} is written to {view.path} ({_summary(view)})", backup=view)


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Also over a cluster that has nodes alive or VMs defined.")
@yes_option
@format_option
@pass_session
def restore(session: Session, file: str, force: bool, yes: bool) -> None:
    """Replace the state tree by that of a FILE made by `pvc cluster backup`.

    Stop the daemons of all nodes first: what they do meanwhile would be lost.
    """
    session.confirm(f"Replace the whole state of the cluster by that in {file}?", yes=yes)
    view = cluster_restore(session.client.ops, ClusterRestore(path=file, force=force))
    made = f", made {words.when(view.created)}" if view.created else ""
    session.out.done(f"cluster {view.cluster} is restored from {view.path} ({_summary(view)}{made})", backup=view)
