"""`mtp-mlx config`: where settings are kept, what holds and where it comes from, and a change."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

import click

from mtp_mlx.cli.options import ROWS, Grouped, option, settings_of, variable_of
from mtp_mlx.config import MAX_VOCAB
from mtp_mlx.errors import ModelNotFound
from mtp_mlx.generation import read_defaults
from mtp_mlx.settings import (
    FLAGS,
    KEYS,
    MODELS,
    Settings,
    config_path,
    parse_settings,
    parse_value,
)
from mtp_mlx.settings_text import line_of, with_value, write_settings

# What holds where nobody says otherwise; None: see the notes.
BUILT_IN: dict[str, Any] = {
    "model": "tiny",
    "draft_model": "auto",
    "memory_limit": None,
    "max_num_seqs": ROWS,
    "seed": None,
    "max_tokens": 4096,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "color_drafts": True,
}
NOTES = {
    "memory_limit": "three quarters of the machine's memory",
    "seed": "drawn for each reply",
}
KEY_WIDTH, VALUE_WIDTH = 24, 16


@dataclass(frozen=True)
class Held:
    """The value of a key, and where it comes from."""

    key: str
    value: Any
    origin: str


@click.group()
def command() -> None:
    """Show and change the settings that commands start from.

    Flags come first, then MTP_MLX_<FLAG> variables, the file, the checkpoint's generation_config,
    and what is built in. Sections: [defaults] model draft_model memory_limit max_num_seqs;
    [sampling] temperature top_k top_p min_p seed max_tokens repetition_penalty presence_penalty
    frequency_penalty; [models."NAME"] path or alias, draft; [ui] color_drafts.
    """


@command.command("path", cls=Grouped)
@click.pass_context
def print_path(context: click.Context) -> None:
    """Print where the settings are kept."""
    print(settings_of(context).path or config_path())


@command.command("show", cls=Grouped)
@option("Output", "--origin", "with_origin", is_flag=True, help="Say where each value comes from.")
@option("Output", "--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def show(context: click.Context, with_origin: bool, as_json: bool) -> None:
    """Print what holds for a command without flags."""
    settings = settings_of(context)
    held = [*_values(settings), *_models(settings)]
    if as_json:
        values = {each.key: {"value": each.value, "origin": each.origin} for each in held}
        print(json.dumps({"path": str(settings.path), "values": values}))
        return
    for each in held:
        value = NOTES.get(each.key.partition(".")[2], "-") if each.value is None else each.value
        spelled = value if isinstance(value, str) else json.dumps(value)
        line = f"{each.key:<{KEY_WIDTH}}{spelled}"
        print(f"{line:<{KEY_WIDTH + VALUE_WIDTH}} {each.origin}" if with_origin else line)


@command.command("set", cls=Grouped)
@click.argument("key")
@click.argument("value")
@click.pass_context
def set_value(context: click.Context, key: str, value: str) -> None:
    """Set KEY, such as defaults.model or sampling.temperature, to VALUE in the file."""
    keys = _split(key)
    parsed = parse_value(keys, value)
    settings = settings_of(context)
    file = settings.path or config_path()
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    written = with_value(text, keys, parsed)
    parse_settings(written, file)
    write_settings(file, written)
    click.echo(f"{key} = {json.dumps(parsed, ensure_ascii=False)} in {file}", err=True)


def _split(key: str) -> tuple[str, ...]:
    """The parts of a key; a model's name may hold dots."""
    first, _, rest = key.partition(".")
    if first != MODELS:
        return (first, rest)
    name, _, last = rest.rpartition(".")
    return (first, name, last)


def _values(settings: Settings) -> list[Held]:
    """Every key but the models' with its value: from the environment, the file, and so on."""
    names = [(section, key) for section in KEYS for key in KEYS[section]]
    held = {f"{section}.{key}": _held(settings, section, key) for section, key in names}
    model = held["defaults.model"]
    assert model is not None, "a model is built in"
    open_keys = [name for name, each in held.items() if each is None]
    found = _of_checkpoint(settings, model.value, open_keys)
    return [each or found[name] for name, each in held.items()]


def _held(settings: Settings, section: str, key: str) -> Held | None:
    """The value of one key, None where the checkpoint says it."""
    name, variable = f"{section}.{key}", variable_of(FLAGS.get(key, key))
    own = settings.values.get(section, {})
    if os.environ.get(variable):
        return Held(name, os.environ[variable], variable)
    if key in own:
        return Held(name, own[key], _place(settings, (section, key)))
    return None if key not in BUILT_IN else Held(name, BUILT_IN[key], "built-in")


def _of_checkpoint(settings: Settings, model: str, names: list[str]) -> dict[str, Held]:
    """Sampling that nobody has set, as the model's own checkpoint has it where that is here."""
    from mtp_mlx.backends import find_pair

    named = settings.models.get(model)
    try:
        folder = find_pair(model if named is None else named.target, "none").target
        values = asdict(read_defaults(folder, MAX_VOCAB))
        origin = f"generation_config of {model}"
    except ModelNotFound:
        values, origin = {}, f"generation_config of {model}, which is not here"
    return {name: Held(name, values.get(name.split(".")[1]), origin) for name in names}


def _models(settings: Settings) -> list[Held]:
    """The user's own names."""
    found = []
    for name, model in settings.models.items():
        keys = (MODELS, name)
        value = model.target if model.draft is None else f"{model.target}, draft {model.draft}"
        found.append(Held(".".join(keys), value, _place(settings, keys)))
    return found


def _place(settings: Settings, keys: tuple[str, ...]) -> str:
    """File and line that set a key."""
    assert settings.path is not None, "only a file sets keys"
    number = line_of(settings.path.read_text(encoding="utf-8"), keys)
    return f"{settings.path}:{number}" if number else str(settings.path)
