"""The names that outside scripts rely on."""

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

import mtp_mlx
from mtp_mlx import errors
from mtp_mlx.options import Keywords, Options

# option -> default, as the issue writes the signatures
LOAD = {
    "draft_model": "auto",
    "max_num_seqs": 8,
    "dtype": None,
    "backend": "mlx",
    "memory_limit": None,
    "check_weights": False,
    "prefill_chunk": None,
    "prompt_cache_bytes": None,
}
GENERATE = {
    "temperature": None,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "seed": None,
    "max_tokens": None,
    "stop": (),
    "num_draft_tokens": "auto",
    "timeout": None,
    "cache": None,
    "repetition_penalty": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "logit_bias": None,
    "logprobs": None,
    "prompt_logprobs": None,
    "response_format": None,
    "tools": None,
    "tool_choice": None,
    "parallel_tool_calls": None,
    "think": False,
    "thinking_budget": None,
    "preserve_thinking": False,
}
REPLY = {
    *("text", "token_ids", "finish_reason", "seed", "spec", "usage", "timings"),
    *("reasoning", "tool_calls", "tool_text", "warning", "cache"),
    *("logprobs", "prompt_logprobs"),
}
SPEC = {"rounds", "drafted", "accepted", "per_position", "tokens_per_round", "target_forwards"}


def error_classes() -> list[type[errors.MtpError]]:
    found = [kind for kind in vars(errors).values() if inspect.isclass(kind)]
    return [kind for kind in found if issubclass(kind, errors.MtpError)]


def test_all_is_sorted_and_every_name_resolves():
    # The linter's order: acronyms, classes, functions.
    order = sorted(mtp_mlx.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert mtp_mlx.__all__ == order
    assert set(mtp_mlx.__all__) == set(mtp_mlx._HOME)
    for name in mtp_mlx.__all__:
        assert vars(sys.modules["mtp_mlx"]).get(name, mtp_mlx.__getattr__(name)) is not None
    space: dict[str, object] = {}
    exec("from mtp_mlx import *", space)
    assert set(mtp_mlx.__all__) <= set(space)
    assert set(mtp_mlx.__all__) <= set(dir(mtp_mlx))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'talk'"):
        _ = mtp_mlx.talk


def test_every_error_says_how_to_answer_it_and_is_public():
    kinds = error_classes()
    for kind in kinds:
        assert isinstance(kind.status, int) and 400 <= kind.status < 600
        assert isinstance(kind.exit_code, int) and kind.exit_code in (1, 2, 3, 4, 5, 70, 130)
        assert kind.code == kind.code.lower() and kind.code.replace("_", "").isalpha()
        assert kind.__doc__
        assert kind.__name__ in mtp_mlx.__all__
    assert {kind.exit_code for kind in kinds} == {1, 2, 4, 5, 70}
    for parent, kind in (
        (mtp_mlx.CheckpointError, mtp_mlx.ModelNotFound),
        (mtp_mlx.CheckpointError, mtp_mlx.DrafterMismatch),
        (mtp_mlx.RequestError, mtp_mlx.ContextLengthExceeded),
        (mtp_mlx.MtpError, mtp_mlx.NumericalError),
    ):
        assert issubclass(kind, parent)


def test_load_has_the_promised_signature():
    parameters = inspect.signature(mtp_mlx.load).parameters
    assert parameters["model"].default == "tiny"
    options = {name: value for name, value in parameters.items() if name != "model"}
    assert {name: value.default for name, value in options.items()} == LOAD
    assert {value.kind for value in options.values()} == {inspect.Parameter.KEYWORD_ONLY}


def test_generating_methods_take_the_promised_keywords():
    assert set(Keywords.__annotations__) == set(GENERATE)
    assert {field.name: field.default for field in fields(Options)} == GENERATE
    first = {"generate": "prompt", "chat": "messages", "stream": "prompt", "batch": "prompts"}
    for name, subject in first.items():
        parameters = inspect.signature(vars(mtp_mlx.LLM)[name]).parameters
        kinds = {name: value.kind for name, value in parameters.items()}
        assert list(kinds)[:2] == ["self", subject]
        assert kinds["options"] is inspect.Parameter.VAR_KEYWORD
    assert list(inspect.signature(mtp_mlx.LLM.logits).parameters) == ["self", "ids"]
    assert list(inspect.signature(mtp_mlx.LLM.propose).parameters) == ["self", "ids", "n"]
    assert {"__enter__", "__exit__", "close"} <= set(vars(mtp_mlx.LLM))


def test_reply_and_chunk_have_the_promised_fields():
    def names(kind: type) -> set[str]:
        return {field.name for field in fields(kind)}

    assert names(mtp_mlx.Reply) >= REPLY
    assert names(mtp_mlx.SpecStats) >= SPEC
    assert names(mtp_mlx.Usage) >= {"prompt_tokens", "completion_tokens", "reasoning_tokens"}
    assert names(mtp_mlx.Chunk) >= {"text", "tokens", "finish_reason", "drafts", "kind"}
    assert names(mtp_mlx.ToolCall) == {"id", "name", "arguments"}
    assert names(mtp_mlx.Token) >= {"id", "text", "origin", "position", "logprob"}
    assert names(mtp_mlx.Logprob) == {"logprob", "top"}
    assert isinstance(mtp_mlx.Token.from_draft, property)


def test_names_resolve_lazily():
    code = (
        "import sys, mtp_mlx; assert 'mtp_mlx.api' not in sys.modules;"
        "mtp_mlx.load; assert 'mtp_mlx.api' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
