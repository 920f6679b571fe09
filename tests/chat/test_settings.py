"""What is set in a chat."""

import pytest

from mtp_mlx.chat.settings import VIEW, Settings, draft_tokens
from mtp_mlx.errors import RequestError
from mtp_mlx.options import Keywords


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("7", 7), ("auto", "auto"), ("1e3", 1000.0), ("[1]", "[1]")]
    + [(text, text) for text in ("[" * 100_000, "9" * 5000)],
)
def test_a_value_is_read_as_what_it_is(text, value):
    assert Settings().with_text("seed", text).keywords == {"seed": value}


@pytest.mark.parametrize("name", Keywords.__annotations__)
def test_every_option_of_the_api_can_be_set_and_taken_back(name):
    text, value = ("3:1", {"3": 1.0}) if name == "logit_bias" else ("3", 3)
    changed = Settings().with_text(name, text)
    assert changed.keywords == {name: value}
    assert (name, str(value)) in changed.rows()
    assert changed.with_text(name, "default") == Settings()


def test_the_view_is_switched():
    changed = Settings().with_text("color_drafts", "off").with_text("hide_thinking", "on")
    assert (changed.color_drafts, changed.hide_thinking) == (False, True)
    assert changed.keywords == {}
    with pytest.raises(RequestError, match="on or off, found 'maybe'"):
        changed.with_text("color_drafts", "maybe")


def test_an_unknown_name_says_the_nearest_and_all():
    with pytest.raises(RequestError, match="perhaps temperature") as caught:
        Settings().with_text("temperatures", "1")
    assert all(name in str(caught.value) for name in (*Keywords.__annotations__, *VIEW))


@pytest.mark.parametrize(("text", "drafts"), [("auto", "auto"), ("off", 0), ("3", 3), ("99", 99)])
def test_drafts_a_round(text, drafts):
    assert draft_tokens(text) == drafts


@pytest.mark.parametrize("text", ["", "on", "-1", "1.5", "9999"])
def test_what_is_no_number_of_drafts_is_refused(text):
    with pytest.raises(RequestError, match="auto, off or a count"):
        draft_tokens(text)


@pytest.mark.parametrize("text", ["5:-2, 7:1.5", '{"5": -2, "7": 1.5}'])
def test_biases_are_pairs_or_json(text):
    found = Settings().with_text("logit_bias", text).keywords
    assert found == {"logit_bias": {"5": -2.0, "7": 1.5}}


@pytest.mark.parametrize("text", ["5:1,5:2", '{"5": 1, "5": 2}'])
def test_a_token_has_one_bias(text):
    with pytest.raises(RequestError, match="names a token twice"):
        Settings().with_text("logit_bias", text)


@pytest.mark.parametrize("text", ["5", "on", "5:", "{}x", "[1]"])
def test_what_is_no_bias_is_refused(text):
    with pytest.raises(RequestError, match="ID:BIAS"):
        Settings().with_text("logit_bias", text)
