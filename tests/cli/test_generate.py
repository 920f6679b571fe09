"""`mtp-mlx generate` in this process: what it prints, and how it answers bad input."""

import json
import shutil

import pytest

import mtp_mlx
from mtp_mlx.request import MAX_SEED
from mtp_mlx.text.visible import visible
from tests.api_pairs import copy_target, folders, loaded, prompt_ids
from tests.cli.answer import Answer

IDS = ",".join(map(str, prompt_ids()))
FIELDS = {
    "model",
    "draft_model",
    "prompt_token_ids",
    "text",
    "token_ids",
    "finish_reason",
    "seed",
    "spec",
    "usage",
    "timings",
    "error",
    "reasoning",
    "tool_calls",
    "tool_text",
    "warning",
    "cache",
    "logprobs",
    "prompt_logprobs",
    "plain_tokens_per_s",
    "peak_memory_bytes",
}


@pytest.fixture
def generate(cli):
    """generate on a golden pair, without the chat template."""
    target, drafter = folders()
    pair = ("--model", target, "--draft-model", drafter)
    return lambda *rest: cli("generate", *pair, "--ignore-chat-template", *rest)


def test_text_goes_to_stdout_and_nothing_else(generate):
    expected = loaded().generate("Why is the sky blue?", seed=7, max_tokens=12)
    answer = generate("Why is the sky blue?", "--seed", 7, "-m", 12)
    assert answer == Answer(0, visible(expected.text) + "\n", "")


def test_json_is_one_object_with_all_fields(generate):
    options = {"temperature": 0.9, "top_k": 9, "top_p": 0.9, "min_p": 0.01, "seed": 5}
    expected = loaded().generate(
        prompt_ids(), **options, max_tokens=9, num_draft_tokens=2, stop=["never seen", "nor this"]
    )
    flags = [
        "--temperature",
        ".9",
        "--top-k",
        9,
        "--top-p",
        ".9",
        "--min-p",
        ".01",
        "--seed",
        5,
        "-m",
        9,
    ]
    stops = ["--stop", "never seen", "--stop", "nor this", "--num-draft-tokens", 2]
    answer = generate("--prompt-ids", IDS, *flags, *stops, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.count("\n") == 1
    body = answer.body
    assert set(body) == FIELDS
    assert body["token_ids"] == list(expected.token_ids)
    assert body["prompt_token_ids"] == prompt_ids()
    assert (body["text"], body["finish_reason"], body["seed"]) == (expected.text, "length", 5)
    assert body["usage"] == {
        "prompt_tokens": 23,
        "completion_tokens": 9,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
        "total_tokens": 32,
    }
    assert body["spec"]["drafted"] == expected.spec.drafted > 0
    assert len(body["spec"]["per_position"]) == 2
    assert body["error"] is None
    assert body["peak_memory_bytes"] > 0


def test_flags_default_to_the_checkpoint_and_a_drawn_seed_is_reported(generate):
    drawn = generate("--prompt-ids", IDS, "-m", 8, "--json").body
    again = loaded().generate(prompt_ids(), seed=drawn["seed"], max_tokens=8)
    assert drawn["token_ids"] == list(again.token_ids)


def test_temperature_zero_is_greedy_at_every_draft_length_and_backend(generate):
    expected = list(loaded().generate(prompt_ids(), temperature=0, max_tokens=6).token_ids)
    for more in (
        ["--num-draft-tokens", "0"],
        ["--num-draft-tokens", "7"],
        ["--num-draft-tokens", "auto"],
        ["--backend", "numpy"],
        ["--dtype", "float32", "--temperature", "0"],
    ):
        answer = generate("--prompt-ids", f" {IDS} ", "--temp", 0, "-m", 6, "--json", *more)
        assert answer.body["token_ids"] == expected, more


def test_stop_text_is_left_out(generate):
    text = loaded().generate("sky", seed=3, max_tokens=20).text
    stop = next(text[at : at + 2] for at in range(3, len(text)) if text[at : at + 2].isascii())
    answer = generate("sky", "--seed", 3, "-m", 20, "--stop", stop)
    assert answer.out == visible(text[: text.index(stop)]) + "\n"


def test_without_a_drafter_one_line_says_so(cli, tmp_path):
    target = copy_target(tmp_path)
    options = ("generate", "sky", "--ignore-chat-template", "--model", target, "-m", 3, "--json")
    missing = cli(*options)
    assert missing.code == 0
    assert missing.err.count("\n") == 1
    assert missing.err.startswith("mtp-mlx: no drafter beside")
    assert missing.body["spec"]["drafted"] == 0
    refused = cli(*options, "--draft-model", "none")
    assert (refused.code, refused.err) == (0, "")
    shutil.copytree(folders()[1], tmp_path / "target-assistant")
    found = cli(*options, "--draft-model", "auto")
    assert (found.code, found.err) == (0, "")
    assert found.body["spec"]["drafted"] > 0


USAGE = [
    ([], "prompt is empty; give it as words, with -p, or through a pipe"),
    ([""], "prompt is empty"),
    ([" ", "\t"], "prompt is empty"),
    (["-p", ""], "prompt is empty"),
    (["-p", "-"], "prompt is empty"),
    (["sky", "-p", "sea"], "words or with -p"),
    (["-p", "sky", "--prompt-ids", "5"], "not both"),
    (["sky", "-s", "Be brief."], "--system-prompt needs the chat template"),
    (["sky", "-n", "0"], "0"),
    (["sky", "-n", "65"], "65"),
    (["sky", "--no-draft", "--draft-model", "auto"], "--no-draft"),
    (["sky", "--draft-block-size", "0"], "0"),
    (["sky", "--draft-block-size", "4", "--num-draft-tokens", "3"], "not both"),
    (["sky", "--trust-remote-code"], "--trust-remote-code"),
    (["sky", "--prompt-ids", "5"], "not both"),
    (["sky", "--bogus"], "--bogus"),
    (["--prompt-ids", ""], "list of ids"),
    (["--prompt-ids", "5,,7"], "5,,7"),
    (["--prompt-ids", "5,x"], "5,x"),
    (["--prompt-ids", "-5"], "-5"),
    (["--prompt-ids", "5.0"], "5.0"),
    (["--prompt-ids", "²"], "²"),
    (["--prompt-ids", "9" * 5000], "list of ids"),
    (["sky", "--num-draft-tokens", "some"], "some"),
    (["sky", "--num-draft-tokens", "-1"], "-1"),
    (["sky", "--num-draft-tokens", "9" * 5000], "neither"),
    (["sky", "--dtype", "float16"], "float16"),
    (["sky", "--backend", "torch"], "torch"),
    (["sky", "--temp", "warm"], "warm"),
    (["sky", "--seed", "1.5"], "1.5"),
]
REQUEST = [
    (["--prompt-ids", "5,256"], "prompt", "256"),
    (["--prompt-ids", ",".join(["5"] * 4096)], "prompt", "4,096"),
    (["sky", "--num-draft-tokens", "8"], "num_draft_tokens", "8"),
    (["sky", "--temp", "nan"], "temperature", "nan"),
    (["sky", "--temp", "-1"], "temperature", "-1"),
    (["sky", "--top-p", "0"], "top_p", "0"),
    (["sky", "--top-k", "-1"], "top_k", "-1"),
    (["sky", "--min-p", "2"], "min_p", "2"),
    (["sky", "--seed", "-1"], "seed", "-1"),
    (["sky", "-m", "0"], "max_tokens", "0"),
    (["sky", "--stop", ""], "stop", "0 characters"),
    (["sky", "--stop", "a\udcff"], "stop", "lone surrogate"),
    (["sky", "--seed", MAX_SEED, "-n", "2"], "seed", str(MAX_SEED + 1)),
    (["sky", "--max-kv-size", "4096"], "max_kv_size", "changes the text"),
    (["sky", "--kv-bits", "8"], "kv_bits", "not quantised"),
    (["sky", "--backend", "numpy", "--dtype", "bfloat16"], "dtype", "float32"),
]


def check_fault(plain: Answer, described: Answer, code: int, word: str) -> dict:
    """The line and the JSON object of one fault; returns the object's error."""
    for answer in (plain, described):
        assert answer.code == code
        assert answer.err.startswith("mtp-mlx: ")
        assert answer.err.count("\n") == 1
        assert word in answer.err
    assert plain.out == ""
    error = described.body["error"]
    assert error["message"] == plain.err.removeprefix("mtp-mlx: ").rstrip("\n")
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize(("arguments", "word"), USAGE, ids=lambda value: str(value)[:40])
def test_wrong_usage_is_one_line_and_exit_code_2(generate, arguments, word):
    error = check_fault(generate(*arguments), generate(*arguments, "--json"), 2, word)
    assert (error["code"], error["param"]) == ("usage", None)


@pytest.mark.parametrize(("arguments", "param", "word"), REQUEST, ids=lambda value: str(value)[:40])
def test_a_request_that_cannot_be_honoured_exits_with_2_and_names_the_option(
    generate, arguments, param, word
):
    error = check_fault(generate(*arguments), generate(*arguments, "--json"), 2, word)
    assert error["param"] == param


def test_faults_of_the_model_have_their_own_exit_codes(cli, tmp_path):
    target, drafter = folders()
    damaged = copy_target(tmp_path)
    (damaged / "config.json").write_text("{")
    torn = copy_target(tmp_path / "torn")
    size = (torn / "model.safetensors").stat().st_size
    with open(torn / "model.safetensors", "r+b") as file:
        file.truncate(size - 1)
    alien = copy_target(tmp_path / "alien")
    config = json.loads((alien / "config.json").read_text())
    (alien / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    cases = [
        (["--model", tmp_path / "absent"], 5, "model_not_found", "absent"),
        (["--model", "tinny"], 5, "model_not_found", "tiny or tiny-moe"),
        (["--model", target, "--draft-model", "/absent"], 5, "model_not_found", "/absent"),
        (["--model", damaged], 1, "invalid_checkpoint", "config.json"),
        (["--model", torn], 1, "invalid_checkpoint", "model.safetensors"),
        (["--model", alien], 2, "unsupported_model", "llama"),
        (["--model", drafter], 2, "unsupported_model", "draft"),
        (["--model", target, "--draft-model", target], 2, "drafter_mismatch", "same folder"),
        (["--model", target, "--draft-model", folders("31b")[1]], 2, "drafter_mismatch", "config"),
    ]
    for arguments, code, name, word in cases:
        arguments = ["generate", "sky", *arguments]
        error = check_fault(cli(*arguments), cli(*arguments, "--json"), code, word)
        assert error["code"] == name


def test_help_version_and_no_command(cli):
    for flag in ("-h", "--help"):
        answer = cli(flag)
        assert (answer.code, answer.err) == (0, "")
        assert "generate" in answer.out
        assert "--prompt-ids" in cli("generate", flag).out
    assert mtp_mlx.__version__ in cli("--version").out
    nothing = cli()
    assert (nothing.code, nothing.out) == (2, "")
    assert "Commands:" in nothing.err
    unknown = cli("chatter")
    assert unknown.code == 2
    assert unknown.err == "mtp-mlx: No such command 'chatter'.\n"


def test_a_fault_of_the_system_is_one_line_and_an_object(generate, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied", "model.safetensors")

    monkeypatch.setattr("mtp_mlx.api.load", refuse)
    error = check_fault(generate("sky"), generate("sky", "--json"), 1, "model.safetensors")
    assert error["code"] == "io"


CHANGES = {
    "repetition_penalty": 1.2,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "logit_bias": {5: -3.0, 7: 1.5, 9: 2.0},
}
BIASES = (
    ("--logit-bias", "5:-3,7:1.5", "--logit-bias", "9:2"),
    ("--logit-bias", '{"5": -3, "7": 1.5, "9": 2}'),
)


@pytest.mark.parametrize("biases", BIASES, ids=["pairs", "json"])
def test_penalties_and_biases_reach_the_reply(generate, biases):
    expected = loaded().generate("sky", seed=7, max_tokens=12, logprobs=2, **CHANGES)
    penalties = ("--repetition-penalty", 1.2, "--presence-penalty", 0.5)
    more = ("--frequency-penalty", 0.25, "--logprobs", 2, "--seed", 7, "-m", 12, "--json")
    body = generate("sky", *penalties, *more, *biases).body
    assert body["token_ids"] == list(expected.token_ids)
    assert body["logprobs"] == json.loads(json.dumps([vars(each) for each in expected.logprobs]))
    assert body["prompt_logprobs"] == []
    assert expected.token_ids != loaded().generate("sky", seed=7, max_tokens=12).token_ids


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--logit-bias", "five:1"), "'five'"),
        (("--logit-bias", "5"), "ID:BIAS"),
        (("--logit-bias", "5:1:2"), "ID:BIAS"),
        (("--logit-bias", "[5]"), "ID:BIAS"),
        (("--logit-bias", '{"5": "a"}'), "ID:BIAS"),
        (("--logit-bias", "{" * 5000), "ID:BIAS"),
        (("--logit-bias", "5:1,5:2"), "twice"),
        (("--logit-bias", '{"5": 1, "5": 2}'), "twice"),
        (("--logit-bias", '{"5": 1, "05": 2}'), "twice"),
        (("--logit-bias", '{"5": {"5": 1}}'), "ID:BIAS"),
        (("--logit-bias", "5:1", "--logit-bias", "5:2"), "two biases"),
        (("--logit-bias", "99999:1"), "99999"),
        (("--logit-bias", "5:101"), "-100 to 100"),
        (("--repetition-penalty", "0"), "above 0"),
        (("--presence-penalty", "3"), "-2 to 2"),
        (("--logprobs", "21", "--json"), "0<=x<=20"),
        (("--logprobs", "2"), "--json"),
    ],
)
def test_a_bad_penalty_or_bias_is_one_line(generate, options, word):
    answer = generate("sky", "-m", 3, *options)
    assert answer.code == 2
    assert word in answer.err
    assert len(answer.err) < 400


def test_a_schema_of_a_file(cli, tmp_path):
    file = tmp_path / "schema.json"
    properties = {"name": {"type": "string"}, "legs": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["name", "legs"]}
    file.write_text(json.dumps(schema | {"additionalProperties": False}))
    answer = cli("generate", "Tell me of a cow", "--temp", 0, "--schema", file)
    assert (answer.code, answer.err) == (0, "")
    assert set(json.loads(answer.out)) == {"name", "legs"}
    file.write_text('{"type": "thing"}')
    answer = cli("generate", "Tell me of a cow", "--schema", file)
    message = "mtp-mlx: the schema cannot be enforced: Invalid type: thing\n"
    assert answer == Answer(2, "", message)
    file.write_text("{")
    answer = cli("generate", "Tell me of a cow", "--schema", file)
    assert answer.code == 2 and "is not JSON" in answer.err and not answer.out
