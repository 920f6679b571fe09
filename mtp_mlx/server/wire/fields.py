"""Which fields of a request are known: refused ones with what to do instead, and harmless ones.

The fields that are honoured are those of the models in requests.py. A field of OpenAI, vLLM or
mlx-lm that would change the reply and is not honoured is refused, unless it says what would happen
anyway. What is in no table belongs to nobody: it is left aside and named in a header.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mtp_mlx.errors import Unsupported
from mtp_mlx.fields import shown


@dataclass(frozen=True)
class Unhonoured:
    """A field that is refused but for its `defaults`; null is always one of them."""

    remedy: str
    defaults: tuple[object, ...] = ()

    def check(self, name: str, value: object) -> None:
        """Raises Unsupported unless `value` changes nothing."""
        if not any(_same(value, default) for default in self.defaults):
            raise Unsupported(f"{name} {shown(value)} is not supported; {self.remedy}", param=name)


def _same(value: object, default: object) -> bool:
    """JSON's equality: 1 is 1.0, and true is no number."""
    is_bool = isinstance(value, bool)
    return is_bool == isinstance(default, bool) and value == default


def _leave_out(*defaults: object) -> Unhonoured:
    return Unhonoured("leave it out", defaults)


SCHEMA = 'use response_format with type "json_schema"'
CHAT = "use /v1/chat/completions"
TEXT_ONLY = "this model reads and writes text only"
TEMPLATE = "the checkpoint's own chat template is used"

# In both kinds of completion.
COMMON: Mapping[str, Unhonoured] = {
    # vLLM
    "use_beam_search": _leave_out(False),
    "length_penalty": _leave_out(1.0),
    "stop_token_ids": Unhonoured("use stop", ([],)),
    "include_stop_str_in_output": _leave_out(False),
    "ignore_eos": Unhonoured("leave it out and give max_tokens", (False,)),
    "min_tokens": _leave_out(0),
    "skip_special_tokens": _leave_out(True),
    "spaces_between_special_tokens": _leave_out(True),
    "truncate_prompt_tokens": Unhonoured("shorten the prompt"),
    "truncation_side": Unhonoured("shorten the prompt"),
    "allowed_token_ids": Unhonoured("use logit_bias"),
    "bad_words": Unhonoured("use logit_bias", ([],)),
    "logprob_token_ids": Unhonoured("use top_logprobs or logprobs"),
    "structured_outputs": Unhonoured(SCHEMA),
    "guided_json": Unhonoured(SCHEMA),
    "guided_regex": Unhonoured(SCHEMA),
    "guided_choice": Unhonoured(SCHEMA),
    "guided_grammar": Unhonoured(SCHEMA),
    "guided_decoding_backend": _leave_out(),
    "guided_whitespace_pattern": _leave_out(),
    "priority": _leave_out(0),
    "return_tokens_as_token_ids": _leave_out(False),
    "return_token_ids": Unhonoured("use /v1/tokenize", (False,)),
    "return_token_offsets": _leave_out(False),
    "return_mm_kwargs": _leave_out(True),
    "routed_experts_prompt_start": _leave_out(0),
    "watermarking": _leave_out(False),
    "repetition_detection": _leave_out(),
    "thinking_token_budget": Unhonoured("use thinking_budget", (-1,)),
    "cache_salt": Unhonoured('use "cache": false, which neither reads nor keeps earlier texts'),
    "kv_transfer_params": _leave_out(),
    "ec_transfer_params": _leave_out(),
    "vllm_xargs": _leave_out(),
    "stream_interval": Unhonoured("a stream has one chunk a round", (1,)),
    # mlx-lm
    "adapters": Unhonoured("serve a model into which the adapter is merged"),
    "repetition_context_size": Unhonoured("repetition_penalty looks at the whole text"),
    "presence_context_size": Unhonoured("presence_penalty looks at the whole reply"),
    "frequency_context_size": Unhonoured("frequency_penalty looks at the whole reply"),
    "xtc_probability": Unhonoured("use min_p or top_p", (0,)),
    "xtc_threshold": Unhonoured("use min_p or top_p", (0.1,)),
    "kv_bits": _leave_out(),
    "max_kv_size": _leave_out(),
    "role_mapping": Unhonoured(TEMPLATE),
    # A grammar that is passed over would be worse than none (llama.cpp's names).
    "grammar": Unhonoured(SCHEMA, ("",)),
    "json_schema": Unhonoured(SCHEMA),
}

CHAT_ONLY: Mapping[str, Unhonoured] = {
    # OpenAI
    "audio": Unhonoured(TEXT_ONLY),
    "modalities": Unhonoured(TEXT_ONLY, (["text"],)),
    "prediction": Unhonoured("drafts come from the drafter"),
    "web_search_options": _leave_out(),
    "moderation": _leave_out(),
    "verbosity": Unhonoured("ask for it in a message", ("medium",)),
    "functions": Unhonoured("use tools", ([],)),
    "function_call": Unhonoured("use tool_choice"),
    "prompt": Unhonoured("send messages, or use /v1/completions"),
    "suffix": _leave_out(""),
    "best_of": Unhonoured("use n", (1,)),
    # vLLM
    "chat_template": Unhonoured(TEMPLATE),
    "add_generation_prompt": Unhonoured(TEMPLATE, (True,)),
    "continue_final_message": Unhonoured("use /v1/completions", (False,)),
    "add_special_tokens": Unhonoured(TEMPLATE, (False,)),
    "documents": Unhonoured("put them into a message", ([],)),
    "media_io_kwargs": Unhonoured(TEXT_ONLY),
    "mm_processor_kwargs": Unhonoured(TEXT_ONLY),
    "include_reasoning": Unhonoured("thoughts come in reasoning_content", (True,)),
    "echo": Unhonoured("use /v1/completions", (False,)),
    "prompt_logprobs": Unhonoured("use /v1/completions"),
    "return_prompt_text": _leave_out(False),
}

COMPLETION_ONLY: Mapping[str, Unhonoured] = {
    "best_of": Unhonoured("use n", (1,)),
    "suffix": Unhonoured("leave it out", ("",)),
    "prompt_embeds": Unhonoured("give a text or token ids"),
    "add_special_tokens": Unhonoured("give token ids", (True,)),
    "messages": Unhonoured(CHAT),
    "tools": Unhonoured(CHAT, ([],)),
    "tool_choice": Unhonoured(CHAT, ("none", "auto")),
    "parallel_tool_calls": Unhonoured(CHAT, (True,)),
    "top_logprobs": Unhonoured("logprobs is a number here", (0,)),
    "reasoning_effort": Unhonoured(CHAT, ("none",)),
    "enable_thinking": Unhonoured(CHAT, (False,)),
    "thinking_budget": Unhonoured(CHAT),
    "chat_template": Unhonoured(CHAT),
    "chat_template_kwargs": Unhonoured(CHAT, ({},)),
}

TOKENIZE: Mapping[str, Unhonoured] = {
    "chat_template": Unhonoured(TEMPLATE),
    "add_generation_prompt": Unhonoured(TEMPLATE, (True,)),
    "continue_final_message": _leave_out(False),
    "media_io_kwargs": Unhonoured(TEXT_ONLY),
    "mm_processor_kwargs": Unhonoured(TEXT_ONLY),
}

# They change nothing in what is written.
HARMLESS = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "session_id",
    }
)
