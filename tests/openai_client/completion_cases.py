"""The old completions."""

from typing import Any

from openai import OpenAI

from tests.openai_client.case import MODEL, case

PROMPT = "Once upon a time"


def complete(client: OpenAI, prompt: Any = PROMPT, **options: Any) -> Any:
    """A greedy completion."""
    options = {"model": MODEL, "temperature": 0.0, "max_tokens": 12, **options}
    return client.completions.create(prompt=prompt, **options)


@case
def a_completion_has_all_its_fields(client: OpenAI) -> None:
    reply = complete(client)
    assert reply.object == "text_completion" and reply.id.startswith("cmpl-")
    [choice] = reply.choices
    assert choice.text and choice.finish_reason in ("stop", "length") and choice.index == 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@case
def prompts_may_be_several(client: OpenAI) -> None:
    both = complete(client, [PROMPT, "The fox"])
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == complete(client).choices[0].text
    assert both.choices[1].text == complete(client, "The fox").choices[0].text


@case
def prompts_may_be_ids(client: OpenAI) -> None:
    body = {"model": MODEL, "prompt": PROMPT}
    ids: Any = client.post("/tokenize", cast_to=object, body=body)
    by_ids = complete(client, ids["tokens"])
    assert by_ids.usage.prompt_tokens == len(ids["tokens"])
    assert by_ids.choices[0].text == complete(client).choices[0].text


@case
def echo_repeats_the_prompt(client: OpenAI) -> None:
    plain = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == PROMPT + plain


@case
def echo_scores_the_prompt(client: OpenAI) -> None:
    reply = complete(client, echo=True, logprobs=2, max_tokens=4)
    found = reply.choices[0].logprobs
    counts = {len(found.tokens), len(found.token_logprobs), len(found.text_offset)}
    assert counts == {len(found.top_logprobs)} and len(counts) == 1
    assert found.token_logprobs[0] is None
    assert all(value <= 0.0 for value in found.token_logprobs[1:])
    assert len(found.tokens) >= reply.usage.prompt_tokens - 1


@case
def completion_logprobs(client: OpenAI) -> None:
    found = complete(client, logprobs=3).choices[0].logprobs
    assert len(found.tokens) == 12 and all(len(top) >= 3 for top in found.top_logprobs)


@case
def completions_stream(client: OpenAI) -> None:
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    said = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert said == complete(client).choices[0].text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 12


@case
def completions_stop(client: OpenAI) -> None:
    whole = complete(client).choices[0].text
    middle = whole[4:8]
    assert complete(client, stop=middle).choices[0].text == whole[: whole.index(middle)]
