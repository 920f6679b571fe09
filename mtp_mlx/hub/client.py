"""The hub over `huggingface_hub`: what a repository holds, one file of it, and faults in words.

The library is imported when something is asked of the hub, and not before. Its telemetry is
switched off. Every fault is a ModelNotFound of one line that names the repository and ends with the
command to try again, and the first answer is waited for no longer than `FIRST_ANSWER_S`: a name
server or a firewall that stays silent must not freeze a terminal.
"""

import logging
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mtp_mlx.errors import ModelNotFound
from mtp_mlx.fields import shown
from mtp_mlx.hub.cache import wanted
from mtp_mlx.hub.record import MOST_BYTES, FileRecord

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling
    from tqdm import tqdm

DEFAULT_ENDPOINT = "https://huggingface.co"
FIRST_ANSWER_S = 8.0
UNAUTHORIZED, FORBIDDEN, MISSING, BUSY, SERVER_FAULT = 401, 403, 404, 429, 500
SHOWN_CHARS = 160
NOT_A_HUB = "what answers there is no hub; check HF_ENDPOINT and the network's login page"

Result = TypeVar("Result")


class NoSuchRepo(ModelNotFound):
    """The hub has no such repository, or none that this user may see."""


class Unanswered(ModelNotFound):
    """The hub cannot be reached, or does not answer now."""


@dataclass(frozen=True)
class Listing:
    """What a repository holds at one commit: the files that a checkpoint is read from."""

    repo_id: str
    revision: str
    commit: str
    licence: str | None
    files: tuple[FileRecord, ...]


def endpoint() -> str:
    """The hub's address. Raises Unanswered for a HF_ENDPOINT that is none: the library would fail
    with it in ways of its own, in part when it is imported."""
    found = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if not _is_address(found):
        raise Unanswered(
            f"HF_ENDPOINT must be an address such as {DEFAULT_ENDPOINT}, found {shown(found)}"
        )
    return found


def _is_address(text: str) -> bool:
    with suppress(ValueError):  # a port or an address in brackets that is none
        parts = urlsplit(text)
        is_complete = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        return bool(is_complete) and text.isprintable() and " " not in text
    return False


def list_repo(repo_id: str, revision: str, remedy: str) -> Listing:
    """The files of a repository at a revision. Raises ModelNotFound, NoSuchRepo."""
    prepare()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    def ask() -> "ModelInfo":
        return HfApi(endpoint=endpoint()).model_info(
            repo_id, revision=revision, files_metadata=True, timeout=FIRST_ANSWER_S
        )

    no_hub = (ValueError, KeyError, TypeError, AttributeError)
    try:
        info = _within(FIRST_ANSWER_S, ask, (HTTPError, OSError, *no_hub))
        return _listing(repo_id, revision, info)
    except (HTTPError, OSError) as error:
        raise explained(error, repo_id, revision, remedy) from error
    except no_hub as error:
        raise Unanswered(f"{repo_id}: {endpoint()}: {NOT_A_HUB}; then {remedy}") from error


def fetch_file(
    listing: Listing, file: FileRecord, cache: Path, count: Callable[[float], None]
) -> Path:
    """Put one file of a commit into the cache, where it is not yet; its place there.

    count: called with the bytes that arrive, negative where some are fetched again; what it raises
    ends the download. Raises what the library does; see `explained`.
    """
    prepare()
    from huggingface_hub import hf_hub_download

    place = hf_hub_download(
        listing.repo_id,
        file.name,
        revision=listing.commit,
        cache_dir=cache,
        endpoint=endpoint(),
        tqdm_class=bar_class(count),
    )
    return Path(place)


def bar_class(count: Callable[[float], None]) -> "type[tqdm]":
    """A progress bar, as the library wants one, that shows nothing and hands the bytes on."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            count(n or 0)
            return None

        def update_transfer(self, n: float | None = 1) -> None:
            """The same bytes on the wire: without this method they are counted twice."""

        def set_transfer_postfix_str(self, postfix: str, refresh: bool = False) -> None:
            """Their speed, in words."""

    return Bar


def hub_faults() -> tuple[type[Exception], ...]:
    """What `fetch_file` raises when the hub, the network or the disk fails."""
    from huggingface_hub.errors import HTTPError

    return (HTTPError, OSError, ValueError, RuntimeError)


def explained(
    error: Exception, repo_id: str, revision: str, remedy: str, file: str | None = None
) -> ModelNotFound:
    """A fault of the hub as an error of ours, in one line. file: what was fetched, if any was."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    status = _status(error)
    where = f"{endpoint()}/{repo_id}"
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"{repo_id}: the hub has no revision {revision!r}; {remedy}")
    if isinstance(error, GatedRepoError):
        return ModelNotFound(
            f"{repo_id}: gated ({status}): accept its terms at {where}, set HF_TOKEN, then {remedy}"
        )
    if status in (UNAUTHORIZED, FORBIDDEN, MISSING):
        why = "the hub has no such model, or HF_TOKEN does not open it"
        return NoSuchRepo(
            f"{repo_id}: {why} ({status}); check the name and HF_TOKEN, then {remedy}"
        )
    if status == BUSY:
        wait = _retry_after(error)
        return Unanswered(
            f"{repo_id}: the hub wants no more requests now (429){wait}; wait, or set HF_TOKEN for "
            f"a higher limit, then {remedy}"
        )
    if isinstance(error, HfHubHTTPError):
        return Unanswered(f"{repo_id}: the hub answered {status}; later again: {remedy}")
    what = "cannot be reached" if file is None else f"did not send {file} whole"
    return Unanswered(
        f"{repo_id}: {endpoint()} {what} ({_first_line(error)}); check the network and "
        f"HF_ENDPOINT (HF_HUB_OFFLINE=1 uses what is cached), then {remedy}"
    )


@contextmanager
def told(say: Callable[[str], None]) -> Generator[None]:
    """Inside, what the library warns of (waits, new attempts) goes to `say`, not to stderr."""
    prepare()
    from huggingface_hub.utils import logging as library

    def hand_on(record: logging.LogRecord) -> bool:
        say(_first_line(record.getMessage()))
        return False

    logger = library.get_logger("huggingface_hub")
    handlers = list(logger.handlers)
    for handler in handlers:
        handler.addFilter(hand_on)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(hand_on)


def prepare() -> None:
    """Before the library is imported: none of what it would tell the hub about this machine. Raises
    Unanswered for an address that it cannot read."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    endpoint()


def _within(
    seconds: float, call: Callable[[], Result], faults: tuple[type[Exception], ...]
) -> Result:
    """The result of `call`, or what it raised of `faults`, or TimeoutError: looking up the name of
    a host cannot be given a limit."""
    results: list[Result] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(call())
        except faults as error:  # handed to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def _listing(repo_id: str, revision: str, info: "ModelInfo") -> Listing:
    """Raises ValueError where the answer lacks what every hub tells."""
    if not isinstance(info.sha, str) or not info.sha.isalnum():
        raise ValueError("no commit")
    if info.id.casefold() == repo_id.casefold():
        repo_id = info.id  # as its owner spells it
    card = info.card_data
    licence = None if card is None else card.license
    files = tuple(_file(one) for one in info.siblings or () if wanted(one.rfilename))
    return Listing(repo_id, revision, info.sha, str(licence) if licence else None, files)


def _file(sibling: "RepoSibling") -> FileRecord:
    """Size and digest of a file. Raises ValueError where the hub does not tell them."""
    size = sibling.size
    digest = f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"
    if not isinstance(size, int) or not 0 <= size <= MOST_BYTES or digest == "git:None":
        raise ValueError(f"{sibling.rfilename}: no size or digest")
    return FileRecord(sibling.rfilename, size, digest)


def _status(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, or None where the hub did not answer."""
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError):
            return error.response.status_code
        error = error.__cause__
    return None


def _retry_after(error: Exception) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    told = error.response.headers.get("Retry-After") if isinstance(error, HfHubHTTPError) else None
    return f", asks to wait {told} s" if told is not None and told.isdecimal() else ""


def _first_line(error: Exception | str) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:SHOWN_CHARS]
