"""`trio-sandbox completion`: what a shell reads to complete commands, options and names."""

from __future__ import annotations

import click

VARIABLE = "_TRIO_SANDBOX_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options and the names of sandboxes.

    \b
    bash  eval "$(trio-sandbox completion bash)"    in ~/.bashrc
    zsh   eval "$(trio-sandbox completion zsh)"     in ~/.zshrc
    fish  trio-sandbox completion fish > ~/.config/fish/completions/trio-sandbox.fish
    """
    from click.shell_completion import get_completion_class

    from trio_sandbox.cli.program import program

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(program, {}, "trio-sandbox", VARIABLE).source())
