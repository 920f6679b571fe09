"""Replies that follow a JSON schema."""

import json
from typing import Any, Literal

from openai import OpenAI
from pydantic import BaseModel, ConfigDict

from tests.openai_client.case import MODEL, PERSON_SCHEMA, STORY, case, say, streamed, text

PERSON: Any = [{"role": "user", "content": "Make a JSON object: name Leo, age 16, city Cairo."}]
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "person", "strict": True, "schema": PERSON_SCHEMA},
}


class Animal(BaseModel):
    """What the client's `parse` asks for."""

    model_config = ConfigDict(extra="forbid")
    name: Literal["fox", "hen", "cat"]
    legs: Literal[2, 4]


@case
def a_schema_is_followed(client: OpenAI) -> None:
    person = json.loads(text(say(client, PERSON, response_format=FORMAT, max_tokens=100)))
    assert set(person) == {"name", "age"} and 0 <= person["age"] <= 99


@case
def a_schema_is_followed_where_the_model_would_not(client: OpenAI) -> None:
    person = json.loads(text(say(client, STORY, response_format=FORMAT, max_tokens=200)))
    assert set(person) == {"name", "age"}


@case
def a_schema_with_and_without_drafts(client: OpenAI) -> None:
    replies = [
        say(
            client,
            PERSON,
            response_format=FORMAT,
            temperature=1.0,
            seed=5,
            extra_body={"num_draft_tokens": drafts},
        )
        for drafts in (0, 4)
    ]
    assert text(replies[0]) == text(replies[1])
    assert replies[1].timings["draft_n_accepted"] > 0


@case
def a_schema_streams(client: OpenAI) -> None:
    whole = text(say(client, PERSON, response_format=FORMAT))
    assert streamed(say(client, PERSON, response_format=FORMAT, stream=True)) == whole


@case
def parse_gives_an_object(client: OpenAI) -> None:
    reply = client.chat.completions.parse(
        model=MODEL, messages=PERSON, temperature=0, response_format=Animal
    )
    animal = reply.choices[0].message.parsed
    assert animal is not None and animal.legs in (2, 4)


@case
def a_budget_may_end_inside_the_object(client: OpenAI) -> None:
    reply = say(client, PERSON, response_format=FORMAT, max_tokens=3)
    assert reply.choices[0].finish_reason == "length"


@case
def format_text_is_no_format(client: OpenAI) -> None:
    assert text(say(client, response_format={"type": "text"})) == "3 + 4 = 7."
