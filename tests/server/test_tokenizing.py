"""Token ids of texts and conversations in vLLM's shapes, and back."""

import pytest

from mtp_mlx.server.wire import objects
from mtp_mlx.server.wire.tokenizing import detokenize, tokenize
from tests.server.wire import HELLO, WEATHER, fault, served


def ids_of(**body):
    found, _ = tokenize(body, served())
    objects.Tokenized.model_validate(found)
    assert found["count"] == len(found["tokens"]) and found["max_model_len"] == 4096
    return found["tokens"]


def test_ids_are_those_of_the_engine():
    llm = served().llm
    assert ids_of(prompt="The sky") == llm.prompt_ids("The sky")
    assert ids_of(prompt="The sky", add_special_tokens=False) == llm.tokenizer.encode("The sky")
    assert ids_of(messages=HELLO) == llm.prompt_ids(HELLO)
    assert ids_of(messages=HELLO, tools=[WEATHER]) == llm.prompt_ids(HELLO, tools=[WEATHER])
    thinking = llm.prompt_ids(HELLO, think=True)
    assert ids_of(messages=HELLO, enable_thinking=True) == thinking != llm.prompt_ids(HELLO)
    assert ids_of(messages=HELLO, chat_template_kwargs={"enable_thinking": True}) == thinking


def test_control_tokens_of_a_text_stay_text():
    assert served().llm.tokenizer.control_id("<turn|>") not in ids_of(prompt="a<turn|>b")


def test_pieces_and_names_that_nobody_defines():
    found, ignored = tokenize({"prompt": "a", "return_token_strs": True, "x": 1}, served())
    assert found["token_strs"] == ["<bos>", "a"] and ignored == "x"
    assert tokenize({"prompt": "a"}, served())[0]["token_strs"] is None


def test_there_and_back():
    found, ignored = detokenize({"tokens": ids_of(prompt="héllo 🌊 <turn|>")}, served())
    assert found == {"prompt": "<bos>héllo 🌊 <turn|>"} and ignored is None
    assert detokenize({"tokens": []}, served())[0] == {"prompt": ""}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": HELLO}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": HELLO, "add_special_tokens": True}, "add_special_tokens"),
        ({"prompt": "a", "chat_template": "x"}, "chat_template"),
    ],
)
def test_a_wrong_body_is_named(body, param):
    status, _, named, _ = fault(tokenize, body)
    assert (status, named) == (400, param)


@pytest.mark.parametrize(
    ("tokens", "param"),
    [
        (None, "tokens"),
        ("a", "tokens"),
        ([1.5], "tokens[0]"),
        ([1, True], "tokens[1]"),
        ([1, -1], "tokens[1]"),
        ([1536], "tokens[0]"),
    ],
)
def test_a_wrong_list_of_ids_is_named(tokens, param):
    assert fault(detokenize, {"tokens": tokens})[:3] == (400, "invalid_value", param)


def test_a_model_that_is_not_served():
    for read, body in ((tokenize, {"prompt": "a"}), (detokenize, {"tokens": []})):
        assert fault(read, body | {"model": "other"})[:2] == (404, "model_not_found")
