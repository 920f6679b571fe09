"""`mtp-mlx completion`: the script that makes a shell complete commands, options and models."""

import click
from click.shell_completion import get_completion_class

PROGRAM = "mtp-mlx"
VARIABLE = "_MTP_MLX_COMPLETE"  # as click names it after the program


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script of SHELL. bash must be 4.4 or newer; a Mac's own is older.

    \b
    bash, in ~/.bashrc:  eval "$(mtp-mlx completion bash)"
    zsh, in ~/.zshrc:    eval "$(mtp-mlx completion zsh)"
    fish, once:          mtp-mlx completion fish \\
                         > ~/.config/fish/completions/mtp-mlx.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    print(kind(context.find_root().command, {}, PROGRAM, VARIABLE).source())
