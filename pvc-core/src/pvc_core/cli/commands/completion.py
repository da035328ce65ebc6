"""`pvc completion`: words completed by the shell."""

import os
from pathlib import Path
from typing import Final

import click

from pvc_core.model.errors import InvalidRequest

SHELLS: Final = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print the script that completes words in your shell, the names of VMs, nodes and the like included.

    \b
    bash: eval "$(pvc completion bash)"                                  in ~/.bashrc
    zsh:  eval "$(pvc completion zsh)"                                   in ~/.zshrc
    fish: pvc completion fish > ~/.config/fish/completions/pvc.fish      once
    """
    from click.shell_completion import get_completion_class

    chosen = shell or _login_shell()
    complete = get_completion_class(chosen)
    if complete is None:
        raise InvalidRequest(f"there is no completion for {chosen}; there is for {', '.join(SHELLS)}")
    # Not .source(): for bash it first runs bash to see whether it is new enough, which every Debian's is.
    script = complete(ctx.find_root().command, {}, "pvc", "_PVC_COMPLETE")
    click.echo(script.source_template % script.source_vars(), nl=False)


def _login_shell() -> str:
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise InvalidRequest(f"name your shell: {', '.join(SHELLS)}")
    return shell
