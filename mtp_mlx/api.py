"""The Python API: load a pair, generate, chat, stream, batch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Unpack, cast

import numpy as np

from mtp_mlx import asked
from mtp_mlx.asked import Asked, Message
from mtp_mlx.backends import Pair, find_pair, load_runtime, open_pair
from mtp_mlx.checkpoint import check_tokenizers
from mtp_mlx.config import TargetConfig
from mtp_mlx.constraint.compiler import Compiler
from mtp_mlx.errors import RequestError
from mtp_mlx.fields import shown
from mtp_mlx.generation import Defaults, read_defaults
from mtp_mlx.job import Job
from mtp_mlx.loading import Loading
from mtp_mlx.options import Keywords, Options
from mtp_mlx.reply import EngineStats, Reply
from mtp_mlx.request import check_integer, check_request, check_token_ids
from mtp_mlx.snapshot import Snapshot
from mtp_mlx.streams import AsyncStream, Stream
from mtp_mlx.text.renderer import RENDERER
from mtp_mlx.text.template import ChatTemplate, has_template
from mtp_mlx.text.tokenizer import Tokenizer
from mtp_mlx.worker import Worker

Prompt = str | Sequence[int] | Sequence[Message]


def load(  # noqa: PLR0913 - keywords, which a user names
    model: str | Path = "tiny",
    *,
    draft_model: str | Path | None = "auto",
    max_num_seqs: int = 8,
    dtype: str | None = None,
    backend: str = "mlx",
    memory_limit: int | str | None = None,
    prefill_chunk: int | None = None,
    prompt_cache_bytes: int | None = None,
    check_weights: bool = False,
) -> "LLM":
    """Load a target and its drafter from checkpoint folders.

    draft_model: a folder, "auto" (the one beside the target, or none), None or "none".
    max_num_seqs: rows decoded together, 1 to 64. dtype: "float32" or "bfloat16"; None is the
    checkpoint's own on a GPU (bfloat16 for float16) and float32 on CPU. backend: "mlx", or "numpy"
    for the slow reference without MLX. memory_limit: bytes that weights, K/V and all else may take,
    also as "12GB" or as a share, "50%"; None, and at most, is three quarters of this machine's
    memory (nine tenths of a CUDA GPU's own), and on Metal its recommended working set. Requests
    wait for one another where K/V would exceed it. prefill_chunk: tokens of a prompt in one
    forward, 8 to 65,536; None is 1,024 (256 on NumPy). prompt_cache_bytes: for K/V that is kept of
    prompts and replies, so that a later prompt that begins the same is read from the last border of
    a chunk on; None is a fifth of the memory that the pair leaves, 0 keeps nothing. Requests come
    first: what is kept makes way for them. check_weights: search all weights for NaN and infinity,
    not only norms, embedding and head.

    Raises CheckpointError (damaged, missing or unsupported files, a drafter that does not belong to
    the target) and DoesNotFit before anything is half loaded, RequestError for a bad argument.
    """
    loading = Loading(
        max_num_seqs=max_num_seqs,
        dtype=dtype,
        backend=backend,
        memory_limit=memory_limit,
        prefill_chunk=prefill_chunk,
        prompt_cache_bytes=prompt_cache_bytes,
    )
    for param, value in (("model", model), ("draft_model", draft_model or "none")):
        if not isinstance(value, str | Path):
            raise RequestError(f"{param} must be a path, found {shown(value)}", param=param)
    pair = find_pair(model, draft_model)
    opened = open_pair(pair, check_all=check_weights)
    if has_template(pair.target):
        RENDERER.start()  # it gets ready while the tokenizer and the weights are read
    config = opened.target.config
    tokenizer = Tokenizer.from_folder(pair.target)
    if pair.drafter is not None:
        check_tokenizers(pair.target, pair.drafter)
    defaults = read_defaults(pair.target, config.vocab_size)
    template = ChatTemplate.from_folder(pair.target)
    worker = Worker(lambda: load_runtime(opened, loading))
    try:
        llm = LLM(worker, config, tokenizer, template, defaults, pair)
        llm.dtype = dtype
        return llm
    except BaseException:
        worker.close()
        raise


class LLM:
    """A loaded pair with a thread of its own. A context manager; any thread may use it.

    `pair` names the folders of target and drafter, `device` what computes, `dtype` is as `load`
    was given it.
    """

    dtype: str | None = None

    def __init__(
        self,
        worker: Worker,
        config: TargetConfig,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        defaults: Defaults,
        pair: Pair,
    ) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.pair = pair
        self._template = template
        eos_ids = {*defaults.eos_ids, *config.eos_ids, *tokenizer.eos_ids}
        self._defaults = Defaults(
            temperature=defaults.temperature,
            top_k=defaults.top_k,
            top_p=defaults.top_p,
            min_p=defaults.min_p,
            eos_ids=tuple(sorted(eos_ids)),
        )
        ends = (*self._defaults.eos_ids, *tokenizer.tool_answer_ids)
        check_token_ids("eos ids of the tokenizer", ends, config.vocab_size)
        self._compiler = Compiler(tokenizer, config.vocab_size, frozenset(ends))
        self._worker = worker
        self.has_drafter: bool = worker.call(lambda runtime, _: runtime.has_drafter)
        self.device: str = worker.call(lambda runtime, _: runtime.device)

    def __enter__(self) -> "LLM":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and free the weights; open replies fail, later calls raise EngineStopped.

        Closing twice does nothing.
        """
        self._worker.close()

    @property
    def note(self) -> str | None:
        """What a user should know, in one line: why there is no drafter where one was looked for,
        why kernels cannot be made, or why its calibration is not kept."""
        found = self.pair.note, self._worker.call(lambda runtime, _: runtime.note)
        return "; ".join(note for note in found if note is not None) or None

    @property
    def has_chat_template(self) -> bool:
        """Can it chat, or does it take raw prompts only?"""
        return self._template is not None

    def peak_memory_bytes(self) -> int:
        """The most memory in use so far."""
        return self._worker.call(lambda runtime, _: runtime.peak_memory_bytes())

    def stats(self) -> EngineStats:
        """What the engine holds at this moment, between two of its steps."""
        return self._worker.call(lambda _, engine: engine.stats())

    def snapshot(self) -> Snapshot:
        """How the engine stands, row by row, as it last showed it: asks and waits for nothing, and
        works in any thread, while the engine is busy or stuck, and when it has ended."""
        return self._worker.board.snapshot

    def warm(self) -> None:
        """Do now what the first reply with a grammar needs, and what would hold up all others for
        as long: seconds for a large vocabulary. A server does so before it takes requests."""
        self._compiler.warm()

    def check_options(self, **options: Unpack[Keywords]) -> None:
        """Raises as `chat` would for these options, and generates nothing."""
        self._chat_job([{"role": "user", "content": "hello"}], options)

    def generate(self, prompt: str | Sequence[int], **options: Unpack[Keywords]) -> Reply:
        """The reply to a raw prompt: a string gets one BOS, token ids are taken as they are.

        Control tokens spelled in a string (`<|turn>`) stay plain text; use chat, or ids.
        """
        return self._finish(self._submit(self._raw_job(prompt, options)))

    def chat(self, messages: Sequence[Message], **options: Unpack[Keywords]) -> Reply:
        """The reply to a conversation, rendered by the checkpoint's own chat template.

        `tools`, `think` and `thinking_budget` are for chats alone. To answer a call, append
        `reply.to_message()` and a message {"role": "tool", "tool_call_id": ..., "content": ...}.
        """
        return self._finish(self._submit(self._chat_job(messages, options)))

    def stream(self, prompt: Prompt, **options: Unpack[Keywords]) -> "Stream":
        """The reply as chunks, one a round or several; `prompt` is text, token ids or messages."""
        return Stream(self._worker, self._submit(self._job(prompt, options)))

    def astream(self, prompt: Prompt, **options: Unpack[Keywords]) -> AsyncStream:
        """The same as an async iterator; call it where an event loop runs."""
        return AsyncStream(self._worker, self._submit(self._job(prompt, options)))

    def prepare(self, prompt: Prompt, **options: Unpack[Keywords]) -> Job:
        """A request that is ready for `follow`: checked, rendered and tokenised, which is slow.

        Any thread may call it; a server does so beside its event loop. Its `timeout` runs from now.
        """
        return self._job(prompt, options)

    def follow(self, *jobs: Job) -> list[AsyncStream]:
        """Start what `prepare` made, all together; call it where an event loop runs."""
        streams = [AsyncStream(self._worker, job) for job in jobs]
        self._worker.submit(*jobs)
        return streams

    def batch(
        self,
        prompts: Sequence[Prompt],
        *,
        each: Sequence[Keywords] | None = None,
        **options: Unpack[Keywords],
    ) -> list[Reply]:
        """Replies to any number of prompts, in their order; each row equals its single run.

        `each` gives options per prompt, over the common ones. A row that fails has finish_reason
        "error" and says why; the others are not harmed.
        """
        if not isinstance(prompts, list | tuple):
            raise RequestError(
                f"prompts must be a list of prompts, found {shown(prompts)}", param="prompts"
            )
        if each is not None and not all(isinstance(own, Mapping) for own in each):
            raise RequestError(
                f"each must hold dicts of options, found {shown(each)}", param="each"
            )
        if each is not None and len(each) != len(prompts):
            raise RequestError(
                f"each has {len(each)} entries for {len(prompts)} prompts", param="each"
            )
        own = each or [Keywords()] * len(prompts)
        pairs = zip(prompts, own, strict=True)
        jobs = [
            self._batched(index, prompt, {**options, **mine})
            for index, (prompt, mine) in enumerate(pairs)
        ]
        self._worker.submit(*jobs)
        try:
            return [job.reply() for job in jobs]
        finally:
            for job in jobs:
                self._worker.cancel(job)

    def _batched(self, index: int, prompt: Prompt, options: Keywords) -> Job:
        """The job of one prompt of a batch; a bad one is named by its number."""
        try:
            return self._job(prompt, options)
        except RequestError as error:
            error.args = (f"prompts[{index}]: {error}",)
            raise

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Teacher-forced logits [L, V] float32 of the target; row i predicts token i + 1."""
        checked = self._checked(ids)
        return self._worker.call(lambda runtime, _: runtime.logits(checked))

    def prompt_ids(self, prompt: Prompt, **options: Unpack[Keywords]) -> list[int]:
        """The token ids that a generating method reads for `prompt`, given the same options."""
        return list(self._asked(prompt, Options.of(options)).ids)

    def propose(self, ids: Sequence[int], n: int) -> list[int]:
        """The drafter's n greedy tokens when ids[-1] is the pending token (at least two ids)."""
        checked = self._checked(ids)
        check_integer("n", n, 1, self.config.max_positions)
        if len(checked) < 2:
            raise RequestError("propose needs at least 2 ids: one cached, one pending", param="ids")
        if not self.has_drafter:
            raise RequestError(
                "no drafter is loaded; give load() a draft_model", param="draft_model"
            )
        return self._worker.call(lambda runtime, _: runtime.propose(checked, n))

    def _checked(self, ids: Sequence[int]) -> list[int]:
        """Ids as plain integers; raises RequestError where one is out of range or too many."""
        ids = self._ids("ids", ids)
        if not 0 < len(ids) <= self.config.max_positions:
            raise RequestError(
                f"ids must hold 1 to {self.config.max_positions} tokens, found {len(ids)}",
                param="ids",
            )
        return ids

    def _ids(self, param: str, ids: Sequence[int] | np.ndarray) -> list[int]:
        listed = list(ids) if isinstance(ids, np.ndarray | range) else ids
        check_token_ids(param, listed, self.config.vocab_size)
        return [int(token) for token in listed]

    def _asked(self, prompt: Prompt, options: Options) -> Asked:
        if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[0], Mapping):
            messages = cast(Sequence[Message], prompt)
            return asked.chat(messages, options, self.tokenizer, self._template)
        return asked.raw(self._encode(cast(str | Sequence[int], prompt)), options)

    def _encode(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            bos = self.tokenizer.bos_id
            return [*([] if bos is None else [bos]), *self.tokenizer.encode(prompt)]
        return self._ids("prompt", prompt)

    def _job(self, prompt: Prompt, keywords: Keywords) -> Job:
        options = Options.of(keywords)
        return self._made(self._asked(prompt, options), options)

    def _raw_job(self, prompt: str | Sequence[int], keywords: Keywords) -> Job:
        options = Options.of(keywords)
        return self._made(asked.raw(self._encode(prompt), options), options)

    def _chat_job(self, messages: Sequence[Message], keywords: Keywords) -> Job:
        options = Options.of(keywords)
        return self._made(asked.chat(messages, options, self.tokenizer, self._template), options)

    def _made(self, prompt: Asked, options: Options) -> Job:
        if options.asks_for_drafts and not self.has_drafter:
            raise RequestError(
                f"num_draft_tokens is {options.num_draft_tokens} and no drafter is loaded; load "
                "one (draft_model, --draft-model), or leave num_draft_tokens 'auto' or 0",
                param="num_draft_tokens",
            )
        grammar, begins = prompt.grammar, prompt.begins
        constraint = None if grammar is None else self._compiler.start(grammar, begins)
        job = Job(prompt, options, self._defaults, self.tokenizer, constraint)
        check_request(job.request, self.config.vocab_size, self.config.max_positions)
        return job

    def _submit(self, job: Job) -> Job:
        self._worker.submit(job)
        return job

    def _finish(self, job: Job) -> Reply:
        try:
            reply = job.reply()
        finally:
            self._worker.cancel(job)
        job.raise_error()
        return reply
