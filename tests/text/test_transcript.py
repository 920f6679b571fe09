import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.errors import RequestError
from mtp_mlx.text.transcript import Transcript
from tests.text.text_fixtures import CONTROLS, FIRST_BYTE

EURO = [FIRST_BYTE + byte for byte in "€".encode()]
TEXTS = st.text(alphabet="ab<|é€ \n", max_size=30)


def hypothesis_settings(test):
    return settings(derandomize=True, deadline=None, max_examples=300)(test)


def run(tokenizer, ids, stops=(), take_each=True):
    """The shown text, the text of its pieces joined, and how many ids were pushed."""
    transcript = Transcript(tokenizer, tuple(stops))
    shown = []
    pushed = 0
    for id_ in ids:
        pushed += 1
        stopped = transcript.push(id_)
        if take_each:
            shown.append(transcript.take())
        if stopped:
            break
    shown.append(transcript.finish())
    assert "".join(shown) == transcript.text
    return transcript.text, pushed


def whole(tokenizer, ids):
    """The full decode, without a character that the end cuts short."""
    text = tokenizer.decode(ids)
    data = b"".join(tokenizer.piece_bytes(i) for i in ids if i not in tokenizer.special_ids)
    for cut in (1, 2, 3):
        try:
            data[-cut:].decode("utf-8")
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and error.start == 0 and cut <= len(data):
                return text[:-cut]
    return text


def first_stop(text, stops):
    """The naive reference: the first end at which any stop string is complete, or None."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return min(starts), end
    return None


@st.composite
def token_ids(draw, vocab_size):
    """Any ids, with many byte pieces: whole characters, broken ones and single bytes."""
    byte = st.integers(FIRST_BYTE, FIRST_BYTE + 255)
    character = st.characters(codec="utf-8").map(
        lambda text: [FIRST_BYTE + b for b in text.encode()]
    )
    part = st.one_of(
        st.integers(0, vocab_size - 1).map(lambda id_: [id_]),
        character,
        st.builds(lambda ids, cut: ids[:cut], character, st.integers(0, 3)),
        st.lists(byte, max_size=4),
    )
    return list(itertools.chain.from_iterable(draw(st.lists(part, max_size=30))))


@hypothesis_settings
@given(data=st.data())
def test_the_pieces_join_to_the_full_decode(tokenizer, data):
    ids = data.draw(token_ids(tokenizer.vocab_size))
    text, _ = run(tokenizer, ids)
    assert text == whole(tokenizer, ids)
    assert run(tokenizer, ids, take_each=False)[0] == text


@hypothesis_settings
@given(data=st.data())
def test_a_stream_never_lags_by_more_than_three_byte_tokens(tokenizer, data):
    ids = data.draw(token_ids(tokenizer.vocab_size))
    transcript = Transcript(tokenizer, ())
    for at, id_ in enumerate(ids):
        transcript.push(id_)
        transcript.take()
        plain = [i for i in ids[: at + 1] if i not in tokenizer.special_ids]
        assert transcript.text.startswith(tokenizer.decode(plain[:-3]).rstrip("\ufffd"))


@hypothesis_settings
@given(data=st.data())
def test_stop_strings_end_the_reply_as_the_naive_reference_does(tokenizer, data):
    ids = data.draw(st.one_of(token_ids(tokenizer.vocab_size), TEXTS.map(tokenizer.encode)))
    full = whole(tokenizer, ids)
    inner = st.builds(lambda a, n: full[a : a + n], st.integers(0, 40), st.integers(1, 6))
    some = st.one_of(st.text(alphabet="ab<|é€ \n\ufffd", min_size=1, max_size=4), inner)
    stops = data.draw(st.lists(some.filter(bool), max_size=4))
    text, pushed = run(tokenizer, ids, stops)
    found = first_stop(full, stops)
    if found is None:
        assert text == full
        assert pushed == len(ids)
        return
    start, end = found
    assert text == full[:start]
    assert len(whole(tokenizer, ids[:pushed])) >= end
    assert len(whole(tokenizer, ids[: pushed - 1])) < end


@hypothesis_settings
@given(text=TEXTS, stop=st.text(alphabet="ab<|é", min_size=1, max_size=4), data=st.data())
def test_every_way_to_split_a_text_gives_one_result(tokenizer, text, stop, data):
    ids = tokenizer.encode(text)
    by_bytes = [FIRST_BYTE + byte for byte in text.encode()]
    assert run(tokenizer, ids, [stop])[0] == run(tokenizer, by_bytes, [stop])[0]


@hypothesis_settings
@given(text=TEXTS, stops=st.lists(st.text(alphabet="ab<|", min_size=1, max_size=5), max_size=3))
def test_only_what_may_begin_a_stop_string_is_held_back(tokenizer, text, stops):
    transcript = Transcript(tokenizer, tuple(stops))
    ids = tokenizer.encode(text)
    for at, id_ in enumerate(ids):
        if transcript.push(id_):
            return
        transcript.take()
        seen = whole(tokenizer, ids[: at + 1])
        starts = [seen[at:] for at in range(len(seen))]
        held = next((s for s in starts if any(stop.startswith(s) for stop in stops)), "")
        assert transcript.text == seen[: len(seen) - len(held)]


def test_a_stop_string_may_span_tokens_and_end_inside_one(tokenizer):
    ids = tokenizer.encode("the user model")
    text, pushed = run(tokenizer, ids, ["e u"])
    assert text == "th"
    assert pushed < len(ids)


def test_the_first_stop_string_to_be_complete_wins(tokenizer):
    ids = tokenizer.encode("abcd")
    assert run(tokenizer, ids, ["abcd", "bc"])[0] == "a"
    assert run(tokenizer, ids, ["c", "bc"])[0] == "a"


def test_leading_and_inner_spaces_are_kept(tokenizer):
    assert run(tokenizer, tokenizer.encode(" a  th "))[0] == " a  th "


def test_a_special_token_adds_no_text_and_does_not_break_a_character(tokenizer):
    ids = [EURO[0], CONTROLS.index("<turn|>"), *EURO[1:]]
    assert run(tokenizer, ids)[0] == "€"


def test_a_character_cut_by_the_budget_is_dropped(tokenizer):
    assert run(tokenizer, [*tokenizer.encode("a"), *EURO[:2]])[0] == "a"


def test_a_broken_character_is_shown_as_soon_as_it_is_known_to_be_broken(tokenizer):
    transcript = Transcript(tokenizer, ())
    shown = []
    for id_ in [EURO[0], EURO[1], FIRST_BYTE + 0xFF, FIRST_BYTE + 0x80]:
        transcript.push(id_)
        shown.append(transcript.take())
    assert shown == ["", "", "\ufffd" * 3, "\ufffd"]


def test_nothing_can_be_added_after_the_end(tokenizer):
    transcript = Transcript(tokenizer, ("a",))
    assert transcript.push(tokenizer.encode("a")[0]) is True
    with pytest.raises(RuntimeError, match="the reply has ended"):
        transcript.push(tokenizer.encode("b")[0])
    assert (transcript.finish(), transcript.finish(), transcript.text) == ("", "", "")


def test_an_id_outside_the_vocabulary_leaves_the_transcript_as_it_was(tokenizer):
    transcript = Transcript(tokenizer, ())
    with pytest.raises(RequestError, match="token id"):
        transcript.push(tokenizer.vocab_size)
    assert transcript.push(tokenizer.encode("b")[0]) is False
    assert transcript.finish() == "b"


@pytest.mark.parametrize(
    "stops", [("",), ("a", ""), ("a",) * 17, ("a" * 257,), (5,), (None,)], ids=lambda s: str(s)[:20]
)
def test_stop_strings_that_cannot_be_honoured_are_refused(tokenizer, stops):
    with pytest.raises(RequestError, match="stop: expected") as caught:
        Transcript(tokenizer, stops)
    assert caught.value.param == "stop"


def test_the_largest_stop_strings_take_linear_time(tokenizer):
    stops = tuple("a" * 255 + end for end in "bcdefghijklmnopq")
    letter = tokenizer.encode("a")[0]
    transcript = Transcript(tokenizer, stops)
    begin = time.process_time()
    for _ in range(20_000):
        transcript.push(letter)
        transcript.take()
    assert time.process_time() - begin < 5
    assert len(transcript.text) == 20_000 - 255
