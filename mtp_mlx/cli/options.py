"""Options that commands share, and the headings under which --help lists them."""

from collections.abc import Callable, Container, Iterator, Mapping
from functools import cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from mtp_mlx.embedded import NAMES
from mtp_mlx.errors import RequestError, Unsupported
from mtp_mlx.loading import MAX_NUM_SEQS
from mtp_mlx.machine import MOST_BYTES, limit_bytes
from mtp_mlx.request import MAX_DRAFT_TOKENS

if TYPE_CHECKING:
    from mtp_mlx.settings import Settings

# Longer numbers are no counts or ids, and Python refuses to read very long ones.
MAX_DIGITS = 18
# Rows decoded together: the most, and as many as there are unless somebody says otherwise.
ROWS = 8
OTHER = "Other"
# Where values come from, the strongest first.
SOURCES = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
LOADING = ("model", "dtype", "backend", "memory_limit", "check_weights")

Decorator = Callable[[Any], Any]


class Headed(click.Option):
    """An option that --help lists under a heading."""

    def __init__(self, *arguments: Any, heading: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heading = heading

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """The name of what holds a wrong value: the option, or the environment's variable."""
        source = None if ctx is None or self.name is None else ctx.get_parameter_source(self.name)
        if source is ParameterSource.ENVIRONMENT and isinstance(self.envvar, str):
            return self.envvar
        return super().get_error_hint(ctx)


class FromFile(Mapping[str, Any]):
    """The options `names` that config.toml sets, read when one is first asked for: --help never
    does."""

    def __init__(self, path: Path | None, names: Container[str]) -> None:
        self._path = path
        self._names = names

    @cached_property
    def settings(self) -> "Settings":
        from mtp_mlx.settings import read_settings

        return read_settings(self._path)

    @cached_property
    def _values(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.settings.options().items() if name in self._names
        }

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _take_settings(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Shared options that are given neither here nor in the environment come from the file."""
    if not context.resilient_parsing:
        names = {each.name for each in context.command.params if each.envvar is not None}
        context.default_map = FromFile(None if value is None else Path(value), names)  # ty: ignore
    return value


def settings_of(context: click.Context) -> "Settings":
    """The settings of a running command."""
    assert isinstance(context.default_map, FromFile), "--config has been read"
    return context.default_map.settings


class Grouped(click.Command):
    """A command whose --help lists its options under their headings, --help itself last.

    has_settings: may the user's settings say anything to it?
    """

    def __init__(self, *arguments: Any, has_settings: bool = True, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not has_settings:
            return
        self.params.append(
            click.Option(
                ["--config"],
                metavar="FILE",
                envvar=variable_of("--config"),
                is_eager=True,
                expose_value=False,
                callback=_take_settings,
                help="Settings, in place of the user's own config.toml.",
            )
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        ctx.default_map = None  # defaults are shown as they are built in, and no file is read
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                heading = param.heading if isinstance(param, Headed) else OTHER
                sections.setdefault(heading, []).append(record)
        sections[OTHER] = sections.pop(OTHER)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class DraftTokens(click.ParamType):
    """'auto' or a count."""

    name = "auto|N"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """As it is typed; click would write it in capitals."""
        return self.name

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        if value == "auto" or isinstance(value, int):
            return value
        if not is_count(value):
            self.fail(f"{value[:40]!r} is neither 'auto' nor a count", param, ctx)
        return int(value)


class Sizes(click.ParamType):
    """Batch sizes separated by commas."""

    name = "N,N,..."

    def convert(
        self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in value.split(",")]
        if not all(is_count(part) and 1 <= int(part) <= MAX_NUM_SEQS for part in parts):
            self.fail(
                f"{value[:40]!r} is no list of sizes from 1 to {MAX_NUM_SEQS}: 1,4,8", param, ctx
            )
        return [int(part) for part in parts]


def is_count(text: str) -> bool:
    """Is this a whole number that is short enough to read?"""
    return text.isdecimal() and len(text) <= MAX_DIGITS


def option(heading: str, *names: str, **attributes: Any) -> Decorator:
    """click.option under a heading of --help."""
    return click.option(*names, cls=Headed, heading=heading, **attributes)


def all_of(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, listed in this order."""
    return lambda command: reduce(lambda inner, wrap: wrap(inner), reversed(decorators), command)


def model_names(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """What the shell completes: folders, then names; bash forgets what comes before the folders."""
    from mtp_mlx.hub.find import names_here

    names = [*(NAMES if param.name == "model" else ("auto", "none")), *names_here()]
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [CompletionItem(incomplete, type="dir"), *found]


def shared(heading: str, *names: str, **attributes: Any) -> Decorator:
    """An option that several commands have: also MTP_MLX_<its first long name>, and in the file."""
    flag = next(name for name in names if name.startswith("--"))
    return option(heading, *names, envvar=variable_of(flag), **attributes)


def variable_of(flag: str) -> str:
    """The environment's name of an option: MTP_MLX_TOP_P for --top-p."""
    return f"MTP_MLX_{flag.strip('-').split('/')[0].replace('-', '_').upper()}"


def _refuse(reason: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """A callback that answers an option of other programs with the reason it is not here."""

    def refuse(context: click.Context, param: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise Unsupported(f"{param.opts[0]} {value[:40]!r}: {reason}", param=param.name)

    return refuse


def _refused(name: str, reason: str) -> Decorator:
    return click.option(name, hidden=True, expose_value=False, callback=_refuse(reason))


class MemoryLimit(click.ParamType):
    """A size or a share of the machine's memory."""

    name = "SIZE|PERCENT"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "12GB|70%"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int:
        try:
            limit_bytes(value, MOST_BYTES)
        except RequestError as error:
            self.fail(str(error), param, ctx)
        return value


model_argument = click.argument(
    "model", default="tiny", envvar=variable_of("--model"), shell_complete=model_names
)
draft_model_option = shared(
    "Model",
    "--draft-model",
    metavar="auto|none|NAME",
    shell_complete=model_names,
    help="Name or folder of the drafter; auto, the default, finds the target's own.",
)
dtype_option = shared(
    "Model",
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    help="Type of activations; float32 on CPU, the checkpoint's own on a GPU.",
)
limit_option = shared(
    "Model",
    "--memory-limit",
    type=MemoryLimit(),
    help="Memory to take at most; three quarters of the machine's when absent, and never more.",
)


def rows_option(flag: str, help_text: str) -> Decorator:
    """How many replies are written at once; the file has it as max_num_seqs."""
    return option(
        "Model",
        flag,
        "max_num_seqs",
        type=click.IntRange(1, MAX_NUM_SEQS),
        default=ROWS,
        show_default=True,
        metavar="N",
        envvar=variable_of("--max-num-seqs"),
        help=help_text,
    )


tint_option = option(
    "Output",
    "--color-drafts/--no-color-drafts",
    default=True,
    envvar=variable_of("--color-drafts"),
    help="Tint accepted drafts on a terminal, the default.",
)


def model_option(default: str | None = None) -> Decorator:
    """--model; None where a command goes on without one."""
    return shared(
        "Model",
        "--model",
        default=default,
        show_default=default is not None,
        metavar="NAME|DIR",
        shell_complete=model_names,
        help=f"{' or '.join(NAMES)}, which are built in; e4b-4bit or org/name of the hub's cache "
        "(mtp-mlx pull); or the folder of a target.",
    )


pair_options = all_of(
    draft_model_option,
    shared("Model", "--no-draft", is_flag=True, help="The same as --draft-model none."),
    shared(
        "Model",
        "--num-draft-tokens",
        type=DraftTokens(),
        help=f"Drafts a round, 0 (plain) to {MAX_DRAFT_TOKENS}; auto: as many as pay.",
    ),
    click.option(
        "--draft-block-size", type=click.IntRange(1, MAX_DRAFT_TOKENS + 1), hidden=True
    ),  # counts the target's own token as well
    dtype_option,
    shared(
        "Model",
        "--backend",
        type=click.Choice(["mlx", "numpy"]),
        default="mlx",
        show_default=True,
        help="numpy is the slow reference, without MLX.",
    ),
    shared(
        "Model",
        "--check-weights",
        is_flag=True,
        help="Search all weights for NaN and infinity, not only norms, table and head.",
    ),
    limit_option,
    _refused(
        "--max-kv-size",
        "the cache is not cut, because that changes the text; windowed layers keep no more than "
        "their window as it is. Shorten the prompt or lower --max-tokens",
    ),
    _refused(
        "--kv-bits",
        "the cache is not quantised, because that changes the text. Leave the option out",
    ),
)

model_options = all_of(model_option("tiny"), pair_options)


def loading_of(given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of load() that the command has options for, taken out of `given`. Raises
    UsageError for a contradiction."""
    drafter, is_plain = given.pop("draft_model"), given.pop("no_draft", False)
    if is_plain and drafter not in (None, "none"):
        order = _rank("no_draft") - _rank("draft_model")
        if not order:
            raise click.UsageError(f"--no-draft and --draft-model {drafter} contradict; give one")
        is_plain = order < 0
    loading = {name: given.pop(name) for name in LOADING if name in given}
    loading["draft_model"] = "none" if is_plain else "auto" if drafter is None else drafter
    return loading | named_by_user(loading)


def _rank(name: str) -> int:
    """How far behind the command line the value of an option comes from."""
    source = click.get_current_context().get_parameter_source(name)
    return SOURCES.index(source) if source in SOURCES else len(SOURCES)


def named_by_user(loading: dict[str, Any], *, is_later: bool = False) -> dict[str, Any]:
    """What [models] of the settings says of a model: where it is, and its drafter unless the
    command line or the environment names one. is_later: what they name is for another model."""
    context = click.get_current_context()
    found = settings_of(context).models.get(loading["model"])
    if found is None:
        return {}
    is_chosen = not is_later and _rank("draft_model") < SOURCES.index(ParameterSource.DEFAULT_MAP)
    if found.draft is None or is_chosen or loading["draft_model"] == "none":
        return {"model": found.target}
    return {"model": found.target, "draft_model": found.draft}


def merge_draft_tokens(given: dict[str, Any]) -> None:
    """Makes --draft-block-size M, where it is given, --num-draft-tokens M - 1."""
    block = given.pop("draft_block_size")
    if block is None:
        return
    if given["num_draft_tokens"] is not None:
        raise click.UsageError("give --num-draft-tokens or --draft-block-size, and not both")
    given["num_draft_tokens"] = block - 1
