"""A tokenizer.model alone: the ids of SentencePiece itself, for any text."""

import io
import json
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

import mtp_mlx
from mtp_mlx.errors import CheckpointError, UnsupportedModel
from mtp_mlx.text import sentencepiece_file
from mtp_mlx.text.sentencepiece_file import build_tokenizer, read_pieces
from mtp_mlx.text.tokenizer import Tokenizer
from tests.quantised.sources import source_pair
from training.gemma_files import NEWLINE_ID, SPECIAL_TOKENS

VOCAB_SIZE = 640
CONTROLS = ("<pad>", "<eos>", "<bos>", "<unk>")
SPACES = ("▁▁", "▁▁▁", "▁▁▁▁", "\n\n")
SYLLABLES = ("ba", "den", "ki", "lo", "mar", "no", "pe", "ri", "sun", "ta", "ver", "wo", "a", "e")


def corpus() -> list[str]:
    """Seeded sentences of invented words, the short ones often."""
    draw = random.Random(11)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(300)]
    weights = [1 / (1 + at) for at in range(len(words))]
    return [
        " ".join(draw.choices(words, weights, k=9)).capitalize() + draw.choice([".", "?", ", 42!"])
        for _ in range(800)
    ]


def train(**changes: object) -> bytes:
    """A tokenizer.model of Gemma's form, the special tokens at Gemma's ids."""
    import sentencepiece

    places = {id_: text for text, id_ in SPECIAL_TOKENS.items()} | {NEWLINE_ID: "\n"}
    symbols = [places.get(id_, f"<unused{id_}>") for id_ in range(4, NEWLINE_ID + 1)]
    options: dict[str, object] = {
        "model_type": "bpe", "vocab_size": VOCAB_SIZE, "byte_fallback": True,
        "pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3,
        "pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>", "unk_piece": "<unk>",
        "user_defined_symbols": [*symbols, *SPACES], "normalization_rule_name": "identity",
        "add_dummy_prefix": False, "remove_extra_whitespaces": False, "split_digits": True,
        "allow_whitespace_only_pieces": True, "character_coverage": 1.0, "num_threads": 1,
        "minloglevel": 2,
    }  # fmt: skip
    found = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=found, **(options | changes)
    )
    return found.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    (path / "tokenizer.model").write_bytes(model)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    return Tokenizer.from_folder(folder)


@pytest.fixture(scope="module")
def oracle(model):
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


def test_the_special_tokens_are_gemmas(tokenizer):
    assert tokenizer.vocab_size == VOCAB_SIZE
    assert tokenizer.bos_id == SPECIAL_TOKENS["<bos>"] == 2
    assert tokenizer.eos_ids == {SPECIAL_TOKENS["<eos>"], SPECIAL_TOKENS["<turn|>"]}
    assert tokenizer.special_ids == set(SPECIAL_TOKENS.values())
    for text, id_ in SPECIAL_TOKENS.items():
        assert tokenizer.encode_template(text) == [id_]
        assert id_ not in tokenizer.encode(text)
        assert tokenizer.decode([id_]) == ""
    assert tokenizer.encode("\n") == [NEWLINE_ID]


WORDS = [word for line in corpus()[:40] for word in line.split()]
OTHERS = (" ", "  ", "   ", "     ", "\n", "\n\n", "\t", "é", "日本", "👩\u200d🚀", "42", "<", "")
SCRAPS = st.lists(
    st.sampled_from([*WORDS, *OTHERS])
    | st.text(max_size=6).filter(lambda text: "\x00" not in text and "▁" not in text)
).map("".join)


def hypothesis_settings(test):
    return settings(derandomize=True, deadline=None, max_examples=150)(test)


@hypothesis_settings
@given(text=SCRAPS)
def test_ids_are_those_of_sentencepiece(tokenizer, oracle, text):
    assert tokenizer.encode(text) == oracle.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_whole_sentences_have_the_ids_of_sentencepiece(tokenizer, oracle):
    text = "\n".join(corpus())
    ids = tokenizer.encode(text)
    assert ids == oracle.encode(text)
    assert len(ids) < len(text) / 2  # pieces were merged


def test_marks_in_a_template_have_the_ids_of_sentencepiece(tokenizer, oracle):
    text = "<|turn>user\n  Ba den?<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"
    assert tokenizer.encode_template(text) == oracle.encode(text)


def test_it_equals_the_tokenizer_json_of_the_same_vocabulary(model, tokenizer, tmp_path):
    """As Transformers' converter writes it: its merges, in its order."""
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = read_pieces(model)
    normal = {p.text: p.id for p in pieces if p.kind == sentencepiece_file.NORMAL}
    scores = {p.text: p.score for p in pieces if p.kind == sentencepiece_file.NORMAL}
    top = json.loads(build_tokenizer(pieces).to_str())
    top["model"]["merges"] = [list(pair) for pair in generate_merges(normal, scores)]
    (tmp_path / "tokenizer.json").write_text(json.dumps(top), encoding="utf-8")
    other = Tokenizer.from_folder(tmp_path)
    for line in corpus():
        assert tokenizer.encode(line) == other.encode(line)
    assert Library.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == VOCAB_SIZE


def test_a_tokenizer_json_beside_it_is_preferred(folder, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"damaged")
    text = build_tokenizer(read_pieces((folder / "tokenizer.model").read_bytes())).to_str()
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).vocab_size == VOCAB_SIZE


def test_a_model_without_tokenizer_json_writes_text(folder, tmp_path):
    target, drafter = source_pair(tmp_path, "31b", vocab_size=VOCAB_SIZE)
    for each in (target, drafter):
        (each / "tokenizer.json").unlink()
        (each / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    llm = mtp_mlx.load(target, draft_model=drafter)
    reply = llm.generate("Baden ki lo", max_tokens=6, temperature=0, num_draft_tokens=2)
    assert llm.tokenizer.decode(reply.token_ids) == reply.text
    assert llm.chat([{"role": "user", "content": "Ta?"}], max_tokens=3).usage.prompt_tokens > 5


BLOCKED = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'sentencepiece':
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from mtp_mlx.cli.main import main
main(sys.argv[1:])
"""


def test_without_the_extra_one_line_names_it(folder, tmp_path):
    target, _ = source_pair(tmp_path, "31b")
    (target / "tokenizer.json").unlink()
    (target / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    arguments = ("generate", "sky", "--model", str(target), "--no-draft")
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, timeout=100
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "tokenizer.model" in result.stderr
    assert "pip install 'mtp-mlx[sp]'" in result.stderr


# --- damaged, or of another form -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "unigram"}, "expected model_type bpe"),
        ({"byte_fallback": False, "vocab_size": 300}, "expected byte_fallback"),
        ({"add_dummy_prefix": True}, "expected no added prefix"),
        ({"remove_extra_whitespaces": True}, "expected all white space kept"),
        ({"normalization_rule_name": "nfkc"}, "expected characters unchanged"),
    ],
)
def test_another_form_is_refused_by_name(changes, said):
    with pytest.raises(UnsupportedModel, match=rf"tokenizer\.model: {said}"):
        read_pieces(train(**changes))


def changed(model: bytes, change) -> bytes:
    from sentencepiece import sentencepiece_model_pb2

    top = sentencepiece_model_pb2.ModelProto()
    top.ParseFromString(model)
    change(top)
    return top.SerializeToString()


def twice(top) -> None:
    top.pieces[600].piece = top.pieces[601].piece


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda top: top.ClearField("pieces"), "expected 1 to 4,194,304 pieces, found 0"),
        (twice, "is empty or there twice"),
        (lambda top: setattr(top.pieces[600], "piece", ""), "is empty or there twice"),
        (lambda top: setattr(top.pieces[600], "piece", "x" * 999), "has 999 characters"),
        (lambda top: setattr(top.pieces[600], "type", 5), "marked as unused"),
        (lambda top: setattr(top.pieces[3], "type", 1), "expected one unknown token, found 0"),
    ],
)
def test_a_damaged_table_is_refused_by_name(model, change, said):
    with pytest.raises(CheckpointError, match=said):
        read_pieces(changed(model, change))


def test_mutated_files_are_typed_errors_or_tokenizers(model, tmp_path):
    draw = random.Random(5)
    path = tmp_path / "tokenizer.model"
    for _ in range(200):
        data = bytearray(model)
        for _ in range(draw.randint(1, 8)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data[: draw.randrange(len(data))] if draw.random() < 0.3 else data)
        try:
            Tokenizer.from_folder(tmp_path).encode("baden <|turn> ki")
        except CheckpointError as error:
            assert str(error).isprintable()
