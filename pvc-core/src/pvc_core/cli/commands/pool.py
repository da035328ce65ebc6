"""`pvc storage pool ...`."""

import click
from msgspec import UNSET

from pvc_core.cli import words
from pvc_core.cli.complete import POOL
from pvc_core.cli.options import format_option, wait_options, yes_option
from pvc_core.cli.output import Cell, Column, Line, Sheet
from pvc_core.cli.parameters import Value, all_as_text, parameter_option
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.sheets import conditions
from pvc_core.ops.pool import (
    PoolAdd,
    PoolList,
    PoolModify,
    PoolQuery,
    PoolView,
    pool_add,
    pool_info,
    pool_list,
    pool_modify,
    pool_remove,
)
from pvc_core.ops.wait import ObjectGoal, wait_pool


def _state(pool: PoolView) -> Cell:
    if pool.deleting:
        return words.state("deleting")
    if pool.ready:
        return Cell("ready", "good")
    return Cell("not ready", "bad") if any(not c.ok for c in pool.conditions) else Cell("pending", "busy")


def _used(pool: PoolView) -> Cell:
    """Return the used part of a pool, with a weight that rises with it."""
    if not pool.usage.total_bytes:
        return Cell("")
    part = pool.usage.used_bytes / pool.usage.total_bytes
    return Cell(f"{part:.0%}", "bad" if part >= 0.9 else "warn" if part >= 0.8 else "")


_COLUMNS = (
    Column("Name", lambda pool: words.name(pool.name)),
    Column("State", _state),
    Column("Driver", lambda pool: pool.driver),
    Column("Volumes", lambda pool: str(pool.volumes), right=True),
    Column("Size", lambda pool: words.size(pool.usage.total_bytes), right=True),
    Column("Free", lambda pool: words.size(pool.usage.free_bytes), right=True),
    Column("Used", _used, right=True),
    Column("Parameters", lambda pool: all_as_text(pool.parameters), long=True),
)


@click.command("list")
@click.argument("name", default="")
@format_option
@pass_session
def list_(session: Session, name: str) -> None:
    """List the pools.

    NAME is a regular expression found anywhere in a name.
    """
    pools = pool_list(session.client.ops, PoolList(name=name))
    session.out.listing(pools, _COLUMNS, empty="no pools" + (" match" if name else ""))


@click.command("info")
@click.argument("pool", type=POOL)
@format_option
@pass_session
def info(session: Session, pool: str) -> None:
    """Show one pool in detail."""
    found = pool_info(session.client.ops, PoolQuery(pool=pool))
    session.out.record(found, _sheet(found))


def _sheet(pool: PoolView) -> Sheet:
    usage = pool.usage
    return [
        Line("Name", words.name(pool.name)),
        Line("ID", words.faint(pool.id)),
        *([Line("Description", pool.description)] if pool.description else []),
        Line("State", _state(pool)),
        Line("Driver", pool.driver),
        Line("Parameters", all_as_text(pool.parameters)),
        Line("Size", words.size(usage.total_bytes)),
        Line("Used", f"{words.size(usage.used_bytes) or '0'} ({_used(pool).text})" if usage.total_bytes else ""),
        Line("Free", words.size(usage.free_bytes)),
        Line("Volumes", str(pool.volumes)),
        Line("Usable on", words.words(pool.nodes)),
        Line("Kept by", pool.node or ""),
        conditions(pool.conditions),
    ]


def _finish(session: Session, view: PoolView, done: str, *, wait: bool, timeout: float) -> None:
    for warning in view.warnings:
        session.out.warn(f"pool {view.name}: {warning}")
    if wait:
        with watching(session, f"pool {view.name}", later=f"pvc storage pool info {view.name}") as report:
            view = wait_pool(session.client.ops, view.id, ObjectGoal.READY, timeout_s=timeout, report=report) or view
    session.out.done(f"pool {view.name} {'is' if wait else 'will be'} {done}", pool=view)


@click.command("add")
@click.argument("name")
@click.option("-d", "--driver", required=True, help="Storage driver, such as dir or ceph-rbd.")
@click.option("--description", default="", help="A few words for people.")
@parameter_option
@wait_options(30)
@format_option
@pass_session
def add(
    session: Session,
    name: str,
    driver: str,
    description: str,
    parameters: tuple[tuple[str, Value | None], ...],
    wait: bool,
    timeout: float,
) -> None:
    """Add a pool.

    What parameters there are is the driver's business: see `pvc plugin show`.
    """
    given = {key: value for key, value in parameters if value is not None}
    request = PoolAdd(name=name, driver=driver, description=description, parameters=given)
    _finish(session, pool_add(session.client.ops, request), "added", wait=wait, timeout=timeout)


@click.command("modify")
@click.argument("pool", type=POOL)
@click.option("--description", help="A few words for people.")
@parameter_option
@wait_options(30)
@format_option
@pass_session
def modify(
    session: Session,
    pool: str,
    description: str | None,
    parameters: tuple[tuple[str, Value | None], ...],
    wait: bool,
    timeout: float,
) -> None:
    """Change a pool; what is not given stays.  `-p key=` removes a parameter."""
    if not parameters and description is None:
        raise click.UsageError("nothing to change: give --description or --parameter")
    request = PoolModify(
        pool=pool, description=UNSET if description is None else description, parameters=dict(parameters)
    )
    _finish(session, pool_modify(session.client.ops, request), "changed", wait=wait, timeout=timeout)


@click.command("remove")
@click.argument("pool", type=POOL)
@yes_option
@wait_options(30)
@format_option
@pass_session
def remove(session: Session, pool: str, yes: bool, wait: bool, timeout: float) -> None:
    """Remove a pool that holds no volumes."""
    ops = session.client.ops
    found = pool_info(ops, PoolQuery(pool=pool))
    session.confirm(f"Remove pool {found.name}?", yes=yes)
    view = pool_remove(ops, PoolQuery(pool=found.id))
    if wait:
        with watching(session, f"pool {view.name}", later="pvc storage pool list") as report:
            wait_pool(ops, view.id, ObjectGoal.GONE, timeout_s=timeout, report=report)
    session.out.done(f"pool {view.name} {'is removed' if wait else 'will be removed'}", pool=view)
