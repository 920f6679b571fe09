"""`mtp-mlx ls`: the models on this machine."""

import json
from typing import TYPE_CHECKING, Any

import click

from mtp_mlx.cli.meter import bytes_text
from mtp_mlx.cli.options import Grouped, option
from mtp_mlx.cli.pull import COMMIT_DIGITS
from mtp_mlx.fields import shown_name
from mtp_mlx.text.visible import visible

if TYPE_CHECKING:
    from mtp_mlx.hub.manage import Entry


@click.command(cls=Grouped, has_settings=False)
@option("Listing", "--all", "is_all", is_flag=True, help="Other programs' models too.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(is_all: bool, as_json: bool) -> None:
    """List the targets and drafters of the hub's cache and of MTP_MLX_MODEL_PATHS.

    tiny and tiny-moe are built in and always here.
    """
    from mtp_mlx.hub.cache import cache_folder
    from mtp_mlx.hub.manage import OTHER, entries

    found = [one for one in entries() if is_all or one.kind != OTHER or one.is_partial]
    if as_json:
        print(json.dumps({"cache": str(cache_folder()), "models": [_body(one) for one in found]}))
        return
    if not found:
        click.echo(f"mtp-mlx: no models in {cache_folder()}; mtp-mlx pull e4b-4bit", err=True)
    widest = max((len(_name(one)) for one in found), default=0)
    for one in found:
        commit = "" if one.commit is None else one.commit[:COMMIT_DIGITS]
        cells = [f"{_name(one):<{widest}}", f"{one.kind:<7}", f"{bytes_text(one.size):>9}"]
        print("  ".join([*cells, f"{commit:<{COMMIT_DIGITS}}", _state(one)]).rstrip())


def _name(entry: "Entry") -> str:
    name = shown_name(entry.name)
    return name if entry.alias is None else f"{name} ({entry.alias})"


def _state(entry: "Entry") -> str:
    if entry.fault is not None:
        return f"not usable: {visible(entry.fault)}"
    return "" if entry.pulled_at is None else f"verified {entry.pulled_at[:10]}"


def _body(entry: "Entry") -> dict[str, Any]:
    return {
        "name": entry.name,
        "alias": entry.alias,
        "kind": entry.kind,
        "folder": str(entry.folder),
        "commit": entry.commit,
        "pulled_at": entry.pulled_at,
        "bytes": entry.size,
        "usable": entry.fault is None,
        "fault": entry.fault,
    }
