"""Bad input to the API: one typed error that names the option and the value, nothing half done."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

import mtp_mlx
from mtp_mlx.text.template import NoChatTemplate
from tests.api_pairs import copy_target, folders, loaded, prompt_ids, runtime_of
from tests.golden import recipe

BAD_IDS = [
    [1.0, 2.0],
    [True, False],
    ["a"],
    [None],
    [256],
    [-1],
    [[2]],
    [2**70],
    None,
    5,
    2.5,
    {2: 3},
    np.array([2.5, 3.0]),
    np.array([[2, 3]]),
    (token for token in (2, 3)),
    b"text",
]
BAD_OPTIONS = [
    ("temperature", -0.1),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("temperature", "1"),
    ("temperature", True),
    ("top_k", -1),
    ("top_k", 2.0),
    ("top_k", True),
    ("top_p", 0),
    ("top_p", 1.5),
    ("top_p", float("nan")),
    ("min_p", -0.5),
    ("min_p", 1.01),
    ("seed", -1),
    ("seed", 2**63),
    ("seed", 1.5),
    ("seed", "7"),
    ("max_tokens", 0),
    ("max_tokens", -3),
    ("max_tokens", 2.0),
    ("max_tokens", 2**40),
    ("num_draft_tokens", -1),
    ("num_draft_tokens", 8),
    ("num_draft_tokens", "many"),
    ("num_draft_tokens", 2.0),
    ("num_draft_tokens", True),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1.0),
    ("repetition_penalty", 10.5),
    ("repetition_penalty", float("nan")),
    ("repetition_penalty", "1"),
    ("presence_penalty", 2.1),
    ("presence_penalty", float("inf")),
    ("presence_penalty", True),
    ("frequency_penalty", -2.1),
    ("frequency_penalty", "none"),
    ("logit_bias", [5, 1.0]),
    ("logit_bias", "5:1"),
    ("logit_bias", {"five": 1.0}),
    ("logit_bias", {"²": 1.0}),
    ("logit_bias", {"9" * 5000: 1.0}),
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", {1.5: 1.0}),
    ("logit_bias", {True: 1.0}),
    ("logit_bias", {5: 101.0}),
    ("logit_bias", {5: float("nan")}),
    ("logit_bias", {5: None}),
    ("logit_bias", {5: 1.0, "5": 1.0}),
    ("logit_bias", {10**9: 1.0}),
    ("logit_bias", dict.fromkeys(range(1025), 1.0)),
    ("logprobs", 21),
    ("logprobs", -1),
    ("logprobs", True),
    ("logprobs", 1.0),
    ("prompt_logprobs", 21),
    ("prompt_logprobs", "5"),
    ("stop", 5),
    ("stop", [5]),
    ("stop", [""]),
    ("stop", ""),
    ("stop", {"a": 1}),
    ("stop", ["a"] * 17),
    ("stop", ["a" * 257]),
]


def is_unharmed(llm: mtp_mlx.LLM) -> bool:
    return llm.stats().is_idle


@pytest.mark.parametrize("ids", BAD_IDS, ids=lambda value: type(value).__name__)
def test_what_is_no_prompt_is_a_request_error_of_every_method(ids):
    llm = loaded()
    calls = {
        "prompt": (llm.generate, llm.stream, lambda bad: llm.batch([[2], bad])),
        "ids": (llm.logits, lambda bad: llm.propose(bad, 2)),
    }
    for param, methods in calls.items():
        for method in methods:
            with pytest.raises(mtp_mlx.RequestError) as caught:
                method(ids)
            assert caught.value.param == param
            assert param in str(caught.value)
    assert is_unharmed(llm)


def test_empty_and_overlong_prompts_are_request_errors_that_name_the_counts():
    llm = loaded()
    for prompt in ([], ()):
        for method in (llm.generate, llm.stream, lambda bad: llm.batch([[2], bad])):
            with pytest.raises(mtp_mlx.RequestError, match="empty"):
                method(prompt)
        with pytest.raises(mtp_mlx.RequestError, match="ids"):
            llm.logits(prompt)
    context = llm.config.max_positions
    for length in (context, context + 1):
        with pytest.raises(mtp_mlx.ContextLengthExceeded, match=f"{length:,}.*{context:,}"):
            llm.generate([9] * length)
    with pytest.raises(mtp_mlx.RequestError, match=str(context + 1)):
        llm.logits([9] * (context + 1))
    assert is_unharmed(llm)


@pytest.mark.parametrize(("name", "value"), BAD_OPTIONS, ids=str)
def test_a_bad_option_is_named_with_its_value(name, value):
    llm = loaded()
    prompt = [2, 9]
    message = [{"role": "user", "content": "sky"}]
    calls = (
        lambda: llm.generate(prompt, **{name: value}),
        lambda: llm.stream(prompt, **{name: value}),
        lambda: llm.chat(message, **{name: value}),
        lambda: llm.batch([prompt, prompt], **{name: value}),
        lambda: llm.batch([prompt, prompt], each=[{}, {name: value}]),
    )
    for call in calls:
        with pytest.raises(mtp_mlx.RequestError, match=name) as caught:
            call()
        assert caught.value.param == name
        assert "\n" not in str(caught.value)
    assert is_unharmed(llm)


def test_an_unknown_keyword_is_a_type_error_that_lists_the_known():
    llm = loaded()
    for call in (
        lambda: llm.generate([2], heat=1.0),
        lambda: llm.stream([2], heat=1.0),
        lambda: llm.chat([{"role": "user", "content": "a"}], heat=1.0),
        lambda: llm.batch([[2]], heat=1.0),
        lambda: llm.batch([[2], [2]], each=[{}, {"heat": 1.0}]),
    ):
        with pytest.raises(TypeError, match=r"heat.*temperature"):
            call()
    with pytest.raises(TypeError):
        mtp_mlx.load(folders()[0], drafter=folders()[1])
    with pytest.raises(TypeError):
        mtp_mlx.load(folders()[0], folders()[1])
    assert is_unharmed(llm)


def test_batch_of_what_is_no_list_of_prompts():
    llm = loaded()
    for prompts in ("sky", [5, 7], None, 5, {"a": "b"}):
        with pytest.raises(mtp_mlx.RequestError) as caught:
            llm.batch(prompts)
        assert caught.value.param in ("prompts", "prompt")
    for each in ([{}], [{}] * 3):
        with pytest.raises(mtp_mlx.RequestError, match="each"):
            llm.batch([[2], [2]], each=each)
    assert is_unharmed(llm)


@pytest.mark.parametrize(
    "messages",
    ["sky", None, 5, [], [5], ["sky"], [None], {"role": "user", "content": "sky"}, [[]], [{1, 2}]],
    ids=str,
)
def test_what_is_no_chat_is_a_request_error(messages):
    llm = loaded()
    with pytest.raises(mtp_mlx.RequestError) as caught:
        llm.chat(messages)
    assert caught.value.param == "messages"
    assert is_unharmed(llm)


def test_text_that_no_tokenizer_reads():
    llm = loaded()
    for call in (
        lambda: llm.generate("a\ud800"),
        lambda: llm.batch(["a", "a\ud800"]),
        lambda: llm.chat([{"role": "user", "content": "a\ud800"}]),
    ):
        with pytest.raises(mtp_mlx.RequestError, match="surrogate"):
            call()
    assert is_unharmed(llm)


def test_propose_needs_two_ids_a_count_and_a_drafter():
    llm = loaded()
    with pytest.raises(mtp_mlx.RequestError, match="at least 2 ids"):
        llm.propose([2], 3)
    for count in (0, -1, 1.5, True, None, "3"):
        with pytest.raises(mtp_mlx.RequestError, match="n must be"):
            llm.propose([2, 9], count)
    with mtp_mlx.load(folders()[0], draft_model=None) as plain:
        assert not plain.has_drafter
        with pytest.raises(mtp_mlx.RequestError, match="no drafter is loaded"):
            plain.propose([2, 9], 3)


def test_a_chat_needs_a_template(tmp_path):
    target = copy_target(tmp_path)
    (target / "chat_template.jinja").unlink()
    with mtp_mlx.load(target, draft_model=None) as llm:
        for call in (
            lambda: llm.chat([{"role": "user", "content": "sky"}]),
            lambda: llm.stream([{"role": "user", "content": "sky"}]),
        ):
            with pytest.raises(NoChatTemplate) as caught:
                call()
            assert (caught.value.code, caught.value.param) == ("no_chat_template", "messages")
        assert llm.generate("sky", max_tokens=1).token_ids


def test_a_closed_model_says_so_and_closes_again_quietly():
    with mtp_mlx.load(folders()[0], draft_model=folders()[1]) as llm:
        stream = llm.stream([2, 9], max_tokens=9)
        next(stream)
        llm.close()
        calls = (
            lambda: llm.generate([2]),
            lambda: llm.generate("sky"),
            lambda: llm.chat([{"role": "user", "content": "sky"}]),
            lambda: llm.stream([2]),
            lambda: llm.batch([[2]]),
            lambda: llm.logits([2]),
            lambda: llm.propose([2, 9], 1),
            llm.peak_memory_bytes,
            lambda: list(stream),
        )
        for call in calls:
            with pytest.raises(mtp_mlx.EngineStopped):
                call()
        stream.cancel()
    llm.close()


def test_closing_frees_the_weights():
    mx.clear_cache()
    before = mx.get_active_memory()
    llm = mtp_mlx.load(folders()[0], draft_model=folders()[1])
    stream = llm.stream([2, 9], max_tokens=9)
    next(stream)
    llm.close()
    mx.clear_cache()
    # The pair has megabytes; what a test before left to be collected may only lower the count.
    assert mx.get_active_memory() - before < 100_000


@pytest.mark.parametrize("backend", ["mlx", "numpy"])
def test_a_row_with_nan_ends_with_an_error_and_harms_no_other(backend):
    target, drafter = folders()
    options = {"temperature": 0, "max_tokens": 6}
    good = [[2, 9, 7], [2, 44]]
    with mtp_mlx.load(target, draft_model=drafter, backend=backend) as llm:
        expected = [llm.generate(prompt, **options).token_ids for prompt in good]
        poison(llm, backend, 77)
        replies = llm.batch([good[0], [2, 77, 9], good[1]], **options)
        assert [reply.finish_reason for reply in replies] == ["length", "error", "length"]
        assert [replies[0].token_ids, replies[2].token_ids] == expected
        assert "NaN" in replies[1].error or "not finite" in replies[1].error
        assert replies[0].error is None
        assert replies[1].token_ids == ()
        with pytest.raises(mtp_mlx.NumericalError):
            llm.generate([2, 77], **options)
        stream = llm.stream([2, 77], **options)
        with pytest.raises(mtp_mlx.NumericalError):
            list(stream)
        assert stream.reply.finish_reason == "error"
        assert is_unharmed(llm)
        assert llm.generate(good[0], **options).token_ids == expected[0]


def poison(llm: mtp_mlx.LLM, backend: str, token: int) -> None:
    """NaN into the input embedding of one token, behind the check at load."""
    target = runtime_of(llm)._target
    embed = target.embed

    def poisoned(ids):
        if backend == "numpy":
            return np.where((np.asarray(ids) == token)[:, None], np.nan, embed(ids))
        return mx.where((ids == token)[:, None], mx.array(float("nan")), embed(ids))

    target.embed = poisoned


def test_a_token_that_the_tokenizer_does_not_know_adds_no_text(tmp_path):
    # Embedding tables are padded: a model may choose an id beyond the tokenizer's last.
    expected = recipe.golden("e4b")["greedy_23"].tolist()[:12]
    unknown = max(expected)
    target = copy_target(tmp_path)
    tokenizer = json.loads((target / "tokenizer.json").read_text())
    model = tokenizer["model"]
    model["vocab"] = {piece: i for piece, i in model["vocab"].items() if i < unknown}
    model["merges"] = [m for m in model["merges"] if "".join(m) in model["vocab"]]
    (target / "tokenizer.json").write_text(json.dumps(tokenizer))
    with mtp_mlx.load(target, draft_model=None) as llm:
        assert llm.tokenizer.vocab_size <= unknown
        reply = llm.generate(prompt_ids(), temperature=0, max_tokens=12)
    assert list(reply.token_ids) == expected
    assert reply.finish_reason == "length"


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_p", 0.0), ("top_p", 2), ("temperature", -1), ("top_k", -1), ("min_p", "x")],
)
def test_sampling_defaults_out_of_range_are_refused_at_load(tmp_path, name, value):
    target = copy_target(tmp_path)
    path = target / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(mtp_mlx.CheckpointError, match=rf"generation_config.json: {name}"):
        mtp_mlx.load(target, draft_model=None)


def test_load_refuses_bad_arguments():
    target = folders()[0]
    for options, word in (
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"max_num_seqs": 65}, "max_num_seqs"),
        ({"max_num_seqs": True}, "max_num_seqs"),
        ({"max_num_seqs": "8"}, "max_num_seqs"),
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": 5}, "dtype"),
        ({"backend": "torch"}, "backend"),
        ({"backend": None}, "backend"),
        ({"backend": "numpy", "dtype": "bfloat16"}, "float32 only"),
    ):
        with pytest.raises(mtp_mlx.RequestError, match=word):
            mtp_mlx.load(target, draft_model=None, **options)


def test_load_refuses_folders_that_are_no_pair(tmp_path):
    target, drafter = folders()
    with pytest.raises(mtp_mlx.ModelNotFound, match="no-such"):
        mtp_mlx.load(tmp_path / "no-such")
    with pytest.raises(mtp_mlx.ModelNotFound, match="no-such"):
        mtp_mlx.load(target, draft_model=tmp_path / "no-such")
    with pytest.raises(mtp_mlx.ModelNotFound, match=r"tinny: .*tiny or tiny-moe"):
        mtp_mlx.load("tinny")
    with pytest.raises(mtp_mlx.CheckpointError):
        mtp_mlx.load(tmp_path)
    with pytest.raises(mtp_mlx.UnsupportedModel, match="draft"):
        mtp_mlx.load(drafter)
    with pytest.raises(mtp_mlx.DrafterMismatch, match="same folder"):
        mtp_mlx.load(target, draft_model=target)
    with pytest.raises(mtp_mlx.DrafterMismatch):
        mtp_mlx.load(target, draft_model=folders("31b")[1])


def test_auto_finds_the_drafter_beside_the_target_or_says_that_there_is_none(tmp_path):
    target = copy_target(tmp_path)
    with mtp_mlx.load(target) as llm:
        assert not llm.has_drafter
        assert "no drafter beside" in llm.note
        assert llm.generate([2, 9], max_tokens=3).spec.drafted == 0
        with pytest.raises(mtp_mlx.RequestError, match="no drafter is loaded"):
            llm.generate([2, 9], max_tokens=3, num_draft_tokens=3)
    shutil.copytree(folders()[1], tmp_path / "target-assistant")
    for folder in (target, str(target), f"{target}/"):
        with mtp_mlx.load(folder) as llm:
            assert llm.has_drafter
            assert llm.note is None
    for none in (None, "none"):
        with mtp_mlx.load(target, draft_model=none) as llm:
            assert not llm.has_drafter
            assert llm.note is None


def test_numpy_integers_are_ids_and_none_is_the_default():
    target, drafter = folders()
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        plain = llm.generate([2, 9, 5], max_tokens=6, seed=np.int64(3))
        for ids in (np.array([2, 9, 5]), list(np.array([2, 9, 5])), (2, np.int32(9), 5)):
            again = llm.generate(ids, max_tokens=6, seed=3, stop=None, num_draft_tokens=None)
            assert again.token_ids == plain.token_ids
        assert llm.logits(np.array([2, 9, 5])).shape == (3, 256)


@pytest.mark.parametrize("value", [10**400, 10**5000, -(10**400)], ids=["400", "5000", "-400"])
@pytest.mark.parametrize("name", ["temperature", "top_k", "seed", "max_tokens", "num_draft_tokens"])
def test_a_huge_number_is_a_request_error_on_one_short_line(name, value):
    target, drafter = folders()
    with (
        mtp_mlx.load(target, draft_model=drafter) as llm,
        pytest.raises(mtp_mlx.RequestError, match=f"{name}.*bits") as caught,
    ):
        llm.generate([2, 9], **{name: value})
    assert len(str(caught.value)) < 200


def test_a_bad_prompt_of_a_batch_is_named_by_its_number():
    target, _ = folders()
    with mtp_mlx.load(target, draft_model=None) as llm:
        with pytest.raises(mtp_mlx.RequestError, match=r"prompts\[1\]: prompt\[1\] is 999"):
            llm.batch([[2, 3], [2, 999]])
        assert is_unharmed(llm)


def test_bfloat16_runs_to_the_end():
    target, drafter = folders()
    with mtp_mlx.load(target, draft_model=drafter, dtype="bfloat16") as llm:
        replies = [
            llm.generate(prompt_ids(), max_tokens=8, seed=3, num_draft_tokens=count)
            for count in (0, 3)
        ]
        assert llm.logits(prompt_ids()).dtype == np.float32
    assert [len(reply.token_ids) for reply in replies] == [8, 8]


def test_an_image_in_a_chat_is_refused_and_text_parts_are_read():
    target, drafter = folders()
    text = {"type": "text", "text": "hello"}
    image = {"type": "image_url", "image_url": {"url": "http://localhost/x.png"}}
    with mtp_mlx.load(target, draft_model=drafter) as llm:
        with pytest.raises(mtp_mlx.Unsupported, match="image_url"):
            llm.chat([{"role": "user", "content": [text, image]}], max_tokens=2)
        assert is_unharmed(llm)


def test_a_folder_that_is_no_checkpoint_says_so(tmp_path):
    with pytest.raises(mtp_mlx.ModelNotFound, match=r"no checkpoint|no .*safetensors") as empty:
        mtp_mlx.load(tmp_path)
    assert empty.value.exit_code == 5
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(mtp_mlx.UnsupportedModel, match="unsupported format") as foreign:
        mtp_mlx.load(tmp_path)
    assert foreign.value.exit_code == 2


@pytest.mark.parametrize("value", [None, b"/tmp", 3, ["a"]])
def test_a_model_that_is_no_path_is_a_request_error(value):
    with pytest.raises(mtp_mlx.RequestError, match="model must be a path"):
        mtp_mlx.load(value)


def test_converters_names_find_the_drafter_too(tmp_path):
    target, drafter = folders()
    quantised = tmp_path / "gemma-4-E4B-it-4bit"
    shutil.copytree(target, quantised)
    shutil.copytree(drafter, tmp_path / "gemma-4-E4B-it-assistant-bf16")
    with mtp_mlx.load(quantised) as llm:
        assert llm.has_drafter
