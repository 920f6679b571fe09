import random
import time

import pytest

from mtp_mlx.errors import CheckpointError, UnsupportedModel
from mtp_mlx.validate import TensorInfo, read_header
from tests.malformed.malformed_corpus import VALID, Case, cases, raw

LIMIT_S = 2.0  # promise of the design: a bad file is refused within two seconds of processor time
SEED = 20_251
MUTATIONS = 300
CASES = cases()
HEADER_LENGTH = int.from_bytes(VALID[:8], "little")
ALPHABET = b'{}[]",:0123456789-.eE truefalsn_\\\x00\xff'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_file_of_the_corpus_is_answered_as_written(case: Case, path):
    path.write_bytes(case.content)
    begin = time.process_time()
    if case.refusal is None:
        read_header(path)
    else:
        with pytest.raises(CheckpointError) as caught:
            read_header(path)
        message = str(caught.value)
        assert case.refusal in message
        assert "/model.safetensors: " in message
        assert "\n" not in message
    assert time.process_time() - begin < LIMIT_S


def test_the_corpus_holds_at_least_the_29_cases_of_the_design():
    assert len({case.name for case in CASES}) == len(CASES) >= 29


def test_a_valid_header_gives_every_tensor(path):
    path.write_bytes(VALID)
    found = read_header(path)
    assert found["b"] == TensorInfo("b", "BF16", (2, 3), 16, 28, path)
    assert sorted(found) == ["a", "b", "empty", "scalar"]


def test_an_eight_bit_float_is_an_unsupported_model(path):
    path.write_bytes(next(case.content for case in CASES if case.name == "dtype_f8"))
    with pytest.raises(UnsupportedModel):
        read_header(path)


@pytest.mark.parametrize("filler", [b'"', b'"a', b'"[', b"[]", b'\\"', b'"\\', b"[" * 9], ids=repr)
def test_the_largest_hostile_header_is_refused_in_time(filler, path):
    size = 16 << 20
    path.write_bytes(raw((b"{" + filler * (size // len(filler)))[:size]))
    begin = time.process_time()
    with pytest.raises(CheckpointError, match="not valid JSON"):
        read_header(path)
    assert time.process_time() - begin < LIMIT_S


@pytest.mark.parametrize("batch", range(3))
def test_mutated_headers_are_accepted_or_refused_with_the_typed_error(batch, path):
    draw = random.Random(SEED + batch)
    for _ in range(MUTATIONS // 3):
        path.write_bytes(_mutated(draw))
        try:
            read_header(path)
        except CheckpointError as error:
            assert "\n" not in str(error)


def _mutated(draw: random.Random) -> bytes:
    """VALID with up to four bytes of its header changed, inserted or dropped, or its end cut."""
    header = bytearray(VALID[8 : 8 + HEADER_LENGTH])
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(header))
        kind = draw.randrange(4)
        if kind == 0:
            header[at] = draw.choice(ALPHABET)
        elif kind == 1:
            header.insert(at, draw.choice(ALPHABET))
        elif kind == 2:
            del header[at]
        else:
            header[at : at + 1] = header[at : at + draw.randint(1, 30)] * 2
    content = raw(bytes(header), VALID[8 + HEADER_LENGTH :])
    return content[: draw.randrange(len(content))] if draw.random() < 0.1 else content
