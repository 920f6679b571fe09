"""`mtp-mlx rm`: delete a model from the hub's cache."""

import json
import sys

import click

from mtp_mlx.cli.meter import bytes_text
from mtp_mlx.cli.options import Grouped, option
from mtp_mlx.cli.pull import hub_names

EXIT_DECLINED = 1


@click.command(cls=Grouped, has_settings=False)
@click.argument("model", shell_complete=hub_names)
@option("Deleting", "-y", "--yes", is_flag=True, help="Do not ask.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(context: click.Context, model: str, yes: bool, as_json: bool) -> None:
    """Delete MODEL, all its revisions, from the hub's cache; other programs lose it too.

    Its drafter stays; it is a model of its own. Without a terminal to ask on, -y is needed.
    """
    from mtp_mlx.hub.manage import find_removable, folder_bytes, remove

    repo = find_removable(model)
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise click.UsageError(f"rm asks first, and there is no terminal; give -y: {model}")
        size = bytes_text(folder_bytes(repo.folder))
        if not click.confirm(f"Delete {repo.repo_id} ({size}) from {repo.folder}?", err=True):
            context.exit(EXIT_DECLINED)
    freed = remove(repo)
    if as_json:
        body = {"removed": repo.repo_id, "folder": str(repo.folder), "bytes": freed}
        print(json.dumps(body))
    else:
        print(f"{repo.repo_id}: {bytes_text(freed)} deleted")
