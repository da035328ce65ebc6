"""`pvc simulate`."""

import sys
from collections.abc import Sequence

import click

from pvc_core.cli.options import format_option
from pvc_core.cli.output import Output
from pvc_core.cli.session import Session, pass_session
from pvc_core.testkit.scenario.result import ScenarioResult, ScenarioRun


@click.command()
@click.argument("paths", metavar="FILE|DIRECTORY...", nargs=-1, required=True, type=click.Path())
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="The first seed [0].")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=1, metavar="N", help="Run each scenario with so many seeds [1]."
)
@click.option("-q", "--quiet", is_flag=True, help="No timeline: a line for each scenario, and what did not come true.")
@format_option
@pass_session
def simulate(session: Session, paths: Sequence[str], seed: int, seeds: int, quiet: bool) -> int:
    """Play scenarios of failures on a simulated cluster, and check what comes of them.

    Needs no cluster and takes well under a second for each: the daemons' real code runs on a virtual clock, with state
    store, hypervisors, power and storage in memory. The same file and seed give the same run; another seed has things that
    are due together happen in another order. At every step it is checked that no guest executes twice.

    Exit status 1: something that was expected did not come true, or an invariant was broken; 2: a file is malformed.

    \b
    pvc simulate scenarios/power/hypervisor.yml
    pvc simulate --quiet --seeds 20 scenarios
    """
    # Here, as they bring the daemon's code: other commands and help do without.
    from pvc_core.plugin.errors import ConfigError
    from pvc_core.testkit.scenario.load import files, load
    from pvc_core.testkit.scenario.play import play

    scripts, wrong = [], []
    for path in files(list(paths)):
        try:
            scripts.append(load(path))
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    results = []
    for script in scripts:
        runs = tuple(play(script, each) for each in range(seed, seed + seeds))
        result = ScenarioResult(
            file=script.path,
            description=script.scenario.description,
            ok=all(run.ok for run in runs),
            runs=runs,
        )
        results.append(result)
        if session.out.format == "table":
            _print(session.out, result, quiet=quiet or session.out.quiet)
    if session.out.format != "table":
        session.out.data(results)
    elif len(results) > 1:
        failed = sum(not result.ok for result in results)
        click.echo(
            f"{len(results)} scenarios, {failed} failed" if failed else f"{len(results)} scenarios, all as expected"
        )
    return int(not all(result.ok for result in results))


def _print(out: Output, result: ScenarioResult, *, quiet: bool) -> None:
    """Print a scenario: the first of the runs that failed, else the first one, and a line that sums them up."""
    failed = [run for run in result.runs if not run.ok]
    run = (failed or list(result.runs))[0]
    if not quiet:
        click.echo(f"{result.file}: {result.description}")
        click.echo(f"seed {run.seed}:")
        for entry in run.timeline:
            click.echo(f"{entry.at:9.2f}  {entry.what}")
    for verdict in run.verdicts:
        if not (quiet and verdict.ok):
            mark = _coloured(out, "  yes " if verdict.ok else "  NO  ", "green" if verdict.ok else "red")
            found = f": {verdict.found}" if verdict.found else ""
            click.echo(f"{mark} {result.file}:{verdict.line}: {verdict.what}{found}")
    if run.broken:
        click.echo(f"{_coloured(out, '  NO  ', 'red')} {run.broken}")
    click.echo(_summary(out, result, failed))
    if not quiet:
        click.echo()


def _summary(out: Output, result: ScenarioResult, failed: list[ScenarioRun]) -> str:
    if not failed:
        seeds = f" with {len(result.runs)} seeds" if len(result.runs) > 1 else ""
        return f"{_coloured(out, 'ok', 'green')}      {result.file}{seeds}"
    with_seed = f" (pvc simulate --seed {failed[0].seed} {result.file})"
    of = f" {len(failed)} of {len(result.runs)} seeds" if len(result.runs) > 1 else ""
    return f"{_coloured(out, 'FAILED', 'red')}  {result.file}{of}{with_seed}"


def _coloured(out: Output, text: str, colour: str) -> str:
    return click.style(text, fg=colour) if out.coloured(sys.stdout) else text
