"""`pvc`: the command line.  Builds the tree of commands, and turns every error into one line and an exit status.

Exit status: 0 done; 1 not done; 2 the request was wrong in itself; 130 interrupted.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from pvc_core.cli.lazy import LazyGroup, Stub, fill
from pvc_core.cli.output import FORMATS, Colour, Format
from pvc_core.cli.plugins import PluginCommand, installed_commands
from pvc_core.cli.session import Session
from pvc_core.cli.table import CORE
from pvc_core.model.errors import PvcError
from pvc_core.plugin.errors import ConfigError

INTERRUPTED: Final = 130
_COMPLETION: Final = "_PVC_COMPLETE"


class Pvc(LazyGroup):
    """The root of all commands."""

    debug = False
    """Tracebacks are wanted."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one call of `pvc` and exit with its status."""
        del standalone_mode  # it always stands alone: errors are told here, in our way
        completing = os.environ.get(complete_var or _COMPLETION)
        try:
            status = super().main(
                args,
                prog_name or "pvc",
                complete_var or _COMPLETION,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except Exception as error:  # the outermost place: nothing may reach the person as a traceback
            if completing:
                # In the middle of somebody's typing: no words is the only good answer.
                sys.exit(1)
            sys.exit(_report(error, debug=self.debug))
        sys.exit(status if isinstance(status, int) else 0)


def _report(error: Exception, *, debug: bool) -> int:
    """Print an error as one line on standard error; return the exit status."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return error.exit_code
    if isinstance(error, click.Abort):
        if isinstance(error.__cause__, KeyboardInterrupt):
            return INTERRUPTED
        return _say("cancelled: nothing was changed", 1)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "pvc"
        hint = f"see: {path} --help"
        if isinstance(error, click.NoSuchOption) and error.option_name in _GLOBAL:
            hint = f"it stands before the command: pvc {error.option_name} ..."
        return _say(f"{error.format_message().rstrip('.')} ({hint})", error.exit_code)
    if isinstance(error, click.ClickException):
        return _say(error.format_message(), error.exit_code)
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, ConfigError):
        # One line for each thing that is wrong with the file.
        return max(_say(line, error.exit_status) for line in str(error).splitlines() or [""])
    if isinstance(error, PvcError):
        return _say(str(error), error.exit_status)
    hint = "" if debug else "; PVC_DEBUG=1 shows where"
    return _say(f"internal error: {type(error).__name__}: {error}{hint}", 1)


def _say(text: str, status: int) -> int:
    click.echo(f"pvc: {' '.join(text.split())}", err=True)
    return status


def _debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> bool:
    root = ctx.command
    if isinstance(root, Pvc):
        root.debug = value
    return value


@click.command()
@click.option(
    "-c", "--config", envvar="PVC_CONFIG", metavar="FILE", help="Cluster to work on: its pvc.yml or pvcnoded.yml."
)
@click.option("--format", "format_", type=click.Choice(FORMATS), default="table", help="How results are printed.")
@click.option("-q", "--quiet", is_flag=True, envvar="PVC_QUIET", help="Results and errors only: no notes, no progress.")
@click.option("-v", "--verbose", count=True, help="Show warnings of the libraries; twice: information too.")
@click.option(
    "--debug", is_flag=True, is_eager=True, envvar="PVC_DEBUG", callback=_debug, help="Show everything, tracebacks too."
)
@click.option(
    "--colour",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    envvar="PVC_COLOUR",
    help="Colours; auto: on a terminal.",
)
@click.version_option(package_name="pvc-core", prog_name="pvc", message="pvc %(version)s")
@click.pass_context
def _root(
    ctx: click.Context,
    config: str | None,
    format_: Format,
    quiet: bool,
    verbose: int,
    debug: bool,
    colour: Colour,
) -> None:
    """Steer a PVC cluster: virtual machines, networks, storage, nodes."""
    if ctx.obj is None:
        ctx.obj = Session()
    ctx.obj.configure(config=config, format_=format_, colour=colour, quiet=quiet, verbose=verbose, debug=debug)
    ctx.call_on_close(ctx.obj.close)


_GLOBAL: Final = frozenset(name for option in _root.params for name in option.opts)
"""Options of `pvc` itself."""


def build(plugins: Sequence[PluginCommand] = ()) -> Pvc:
    """Return the command tree: core's table, then what plugins add."""
    root = Pvc(
        "pvc",
        callback=_root.callback,
        params=_root.params,
        help=_root.help,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    fill(root, CORE)
    for command in plugins:
        _add(root, command)
    return root


def _add(root: click.Group, command: PluginCommand) -> None:
    """Put a plugin's stub into the tree; core's own commands win, and what does not fit is one warning."""
    spec = command.spec
    group = root.commands.get(spec.extends) if spec.extends else root
    if not isinstance(group, click.Group):
        _warn(f"plugin {command.plugin!r}: its command {spec.name!r} is for {spec.extends!r}, which is no group of pvc")
    elif spec.name in group.commands:
        _warn(f"plugin {command.plugin!r}: its command {spec.name!r} is left out, because that name is taken")
    else:
        group.add_command(Stub(spec.name, spec.help, spec.target, plugin=command.plugin))


def _warn(text: str) -> None:
    click.echo(f"pvc: warning: {' '.join(text.split())}", err=True)


def main() -> None:
    """Run `pvc` with the arguments of this process, and exit with its status."""
    warn = _ignore if os.environ.get(_COMPLETION) else _warn
    build(installed_commands(warn)).main()


def _ignore(_text: str) -> None:
    """Say nothing: somebody is typing."""
