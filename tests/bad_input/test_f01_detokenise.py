"""F1, F2, F3: long and broken characters, spaces and special ids, as text and as a stream."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtp_mlx.text.tokenizer import Tokenizer
from mtp_mlx.text.transcript import Transcript
from tests.api_pairs import loaded, prompt_ids, scripted
from tests.bad_input.spelled import HOT, Spelled, pieces_of
from tests.oracle import agreeing, always
from tests.text.text_fixtures import write_model

TEXTS = {
    "family": "👨\u200d👩\u200d👧\u200d👦 at home",
    "flags": "🇩🇪🇯🇵🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "skin": "👍🏽 ❤\ufe0f",
    "cjk": "天空は青い。為什麼？하늘 𠮷",
    "rtl": "שלום \u0645\u0631\u062d\u0628\u0627 \u200fabc\u200e",
    "marks": "e\u0301\u0302\u0303 नमस्ते กำ",
    "bom": "\ufeffa\ufffd\u2028b\ufeff",
    "spaces": "  a  b \n\n c\t ",
}
# Runs of bytes that are no UTF-8, and how many U+FFFD each is.
BROKEN = {
    "continuation": (b"\x80\xbf", 2),
    "overlong": (b"\xc0\x80", 2),
    "overlong_long": (b"\xe0\x80\x80", 3),
    "surrogate": (b"\xed\xa0\x80", 3),
    "beyond_unicode": (b"\xf4\x90\x80\x80", 4),
    "no_utf8": (b"\xfe\xff\xf8", 3),
    "begins_anew": (b"\xf0\x9f\x91\xf0\x9f\x91", 6),
    "two_of_three": (b"\xe2\x82", 2),
}


def byte_ids(tokenizer: Tokenizer, data: bytes) -> list[int]:
    """Byte-fallback ids; the golden tokenizer has those of multi-byte characters alone."""
    ids = {tokenizer.id_to_piece(id_): id_ for id_ in range(tokenizer.vocab_size)}
    return [ids[f"<0x{byte:02X}>"] for byte in data]


def stream(tokenizer: Tokenizer, ids: list[int], *, is_cut: bool = False) -> list[str]:
    """What becomes showable with each token, and at the end."""
    transcript = Transcript(tokenizer, ())
    shown = []
    for id_ in ids:
        transcript.push(id_)
        shown.append(transcript.take())
    return [*shown, transcript.finish(is_cut=is_cut)]


@pytest.fixture(scope="module")
def tokenizer():
    return loaded().tokenizer


@pytest.fixture(scope="module")
def all_bytes(tmp_path_factory):
    """A tokenizer with all 256 byte tokens."""
    folder = tmp_path_factory.mktemp("bytes")
    write_model(folder)
    return Tokenizer.from_folder(folder)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_each_character_is_shown_with_its_last_byte(tokenizer, text):
    ids = tokenizer.encode(text)
    shown = stream(tokenizer, ids)
    assert "".join(shown) == tokenizer.decode(ids) == text
    assert shown[-1] == ""
    for number in range(len(ids) + 1):
        data = b"".join(map(tokenizer.piece_bytes, ids[:number]))
        assert "".join(shown[:number]) == data.decode("utf-8", "ignore")


@pytest.mark.parametrize(("data", "count"), BROKEN.values(), ids=BROKEN)
def test_a_run_of_broken_bytes_is_one_mark_a_byte_and_delays_nothing(all_bytes, data, count):
    for before, after in ((b"", b""), (b"", b"a"), ("€".encode(), "👨".encode())):
        ids = byte_ids(all_bytes, before + data + after)
        expected = before.decode() + "\ufffd" * count + after.decode()
        assert "".join(stream(all_bytes, ids)) == all_bytes.decode(ids) == expected


def test_an_incomplete_end_is_shown_where_the_model_ends_and_dropped_where_it_is_cut(all_bytes):
    for character in ("é", "€", "👨"):
        for size in range(1, len(character.encode())):
            ids = byte_ids(all_bytes, b"a" + character.encode()[:size])
            assert stream(all_bytes, ids) == ["a", *[""] * size, "\ufffd" * size]
            assert "".join(stream(all_bytes, ids)) == all_bytes.decode(ids)
            assert "".join(stream(all_bytes, ids, is_cut=True)) == "a"


def test_a_stop_string_drops_what_follows_and_marks_at_the_end_may_complete_one(all_bytes):
    ids = byte_ids(all_bytes, b"ab\xe2\x82")
    transcript = Transcript(all_bytes, ("b\ufffd",))
    assert [transcript.push(id_) for id_ in ids] == [False] * 4
    assert transcript.take() == "a"
    assert (transcript.finish(is_cut=False), transcript.finish(is_cut=False)) == ("", "")
    assert transcript.is_stopped


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_no_stream_of_random_ids_ever_freezes(all_bytes, data):
    ids = data.draw(st.lists(st.integers(0, all_bytes.vocab_size - 1), max_size=60))
    shown = stream(all_bytes, ids)
    assert "".join(shown) == all_bytes.decode(ids)
    for number in range(len(ids) + 1):
        plain = [id_ for id_ in ids[:number] if id_ not in all_bytes.special_ids]
        pieces = b"".join(map(all_bytes.piece_bytes, plain))
        texts = [show(pieces[: len(pieces) - held]) for held in range(min(4, len(pieces) + 1))]
        assert "".join(shown[:number]) in texts


def show(data: bytes) -> str:
    """UTF-8 as text, each byte of no character as one U+FFFD; the slow way, byte by byte."""
    text = ""
    while data:
        sizes = (size for size in (1, 2, 3, 4) if is_character(data[:size], size))
        size = next(sizes, 0)
        text += data[:size].decode() if size else "\ufffd"
        data = data[size or 1 :]
    return text


def is_character(data: bytes, size: int) -> bool:
    try:
        return len(data) == size and len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


@pytest.mark.parametrize("drafts", [0, 3, 7])
def test_a_budget_inside_a_character_drops_it_from_stream_and_reply_alike(drafts):
    spelled = Spelled(pieces_of())
    cut = 0
    for budget in (3, 5, 6, 7, 8, 9, 10, len(spelled.ids)):
        options = {**spelled.options, "max_tokens": budget, "num_draft_tokens": drafts}
        running = spelled.llm(agreeing(0.7, 2)).stream(prompt_ids(), **options)
        joined = "".join(chunk.text for chunk in running)
        reply = spelled.llm(always("right")).generate(prompt_ids(), **options)
        assert joined == reply.text == running.reply.text == spelled.text(budget)
        assert reply.token_ids == running.reply.token_ids == spelled.ids[:budget]
        assert reply.finish_reason == "length"
        cut += spelled.tokenizer.decode(reply.token_ids) != reply.text
    assert cut == 1 + 2 + 3  # of the two, three and four bytes


@pytest.mark.parametrize("drafts", [0, 5])
@pytest.mark.parametrize("seed", range(4))
def test_a_reply_of_random_ids_is_their_full_decode(tokenizer, seed, drafts):
    options = {**HOT, "seed": seed, "max_tokens": 60}
    plain = loaded().generate(prompt_ids(), **options, num_draft_tokens=0)
    llm = scripted([plain.token_ids], agreeing(0.6, seed))
    running = llm.stream(prompt_ids(), **options, num_draft_tokens=drafts)
    joined = "".join(chunk.text for chunk in running)
    assert running.reply.token_ids == plain.token_ids
    assert joined == running.reply.text == plain.text
    whole = tokenizer.decode(plain.token_ids)
    if plain.finish_reason == "stop":
        assert joined == whole
    else:  # the budget may have cut a character of up to four bytes
        assert joined in [whole] + [whole[:-size] for size in (1, 2, 3) if whole.endswith("\ufffd")]


def test_special_ids_inside_a_reply_add_no_text_and_break_no_character(tokenizer):
    euro = byte_ids(tokenizer, "€".encode())
    ends = tokenizer.eos_ids
    for special in sorted(tokenizer.special_ids - ends):
        ids = [*tokenizer.encode(" a"), special, euro[0], special, *euro[1:], special]
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids) == " a€"
        assert len(tokenizer.decode(ids, skip_special=False)) > 3
