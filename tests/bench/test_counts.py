"""Counts that measure nothing are refused by name, before anything is loaded."""

import sys
from importlib import import_module

import pytest

from bench.counts import at_least, positive

REFUSED = (
    "acceptance --prompts 0",
    "auto --repeats 0",
    "auto --rows 0",
    "draft_step --repeats 0",
    "host_time --repeats 0",
    "host_time --tokens 1",
    "policy_sim --every 0",
    "policy_sim --jobs 0",
    "policy_time --rows 0",
    "policy_time --tokens 1",
    "prefixes --turns 0",
    "ragged --peer --peer-tokens 1",
    "right --prompts 0",
    "rounds --repeats 0",
    "schema_replies --replies 0",
    "serve --clients 0",
    "serve --repeats 0",
    "serve --requests 0",
    "start --repeats 0",
    "start --repeats many",
)


@pytest.mark.parametrize("words", REFUSED)
def test_a_count_that_measures_nothing_is_refused(words, monkeypatch, capsys):
    name, *options = words.split()
    monkeypatch.setattr(sys, "argv", [name, *options])
    with pytest.raises(SystemExit) as left:
        import_module(f"bench.{name}").main()
    said = capsys.readouterr()
    assert (left.value.code, said.out) == (2, "")
    assert said.err.splitlines()[-1].split(": ")[1:3] == [
        "error",
        f"argument {options[-2]}",
    ]


def test_counts():
    assert positive("1") == 1
    assert at_least(2)("2") == 2
