"""The memory plan: its figures by hand for two shapes, and what a load makes of them."""

import os
from pathlib import Path

import mlx.core as mx
import pytest

import mtp_mlx
from mtp_mlx import fit
from mtp_mlx.checkpoint import open_target
from mtp_mlx.config import TargetConfig
from mtp_mlx.embedded import embedded_folder
from mtp_mlx.engine import runtime
from mtp_mlx.engine.memory import Memory
from mtp_mlx.errors import DoesNotFit
from mtp_mlx.fit import Plan, row_bytes, weight_bytes, work_bytes
from mtp_mlx.machine import limit_bytes
from mtp_mlx.model import view
from mtp_mlx.model.load import load_target
from mtp_mlx.validate import TensorInfo
from tests.api_pairs import engine_of, folders, runtime_of

F32, BF16 = 4, 2


def config_of(name: str) -> TargetConfig:
    folder = embedded_folder(name) if name.startswith("tiny") else folders(name)[0]
    return open_target(folder).config


@pytest.mark.parametrize(
    ("name", "rows", "windows"),
    [
        # 8 sliding layers of their own, keys and values, window 24 + 8, 1 head of 16, 4 bytes; and
        # while a layer's keys move to the last slot, those of the 7 before it twice.
        ("tiny", 8, 8 * (8 * 2 * 32 * 1 * 16 * F32) + 7 * 32 * 1 * 16 * F32),
        # 5 sliding layers, window 8 + 8, 2 heads of 16.
        ("31b", 3, 3 * (5 * 2 * 16 * 2 * 16 * F32) + 2 * 16 * 2 * 16 * F32),
    ],
)
def test_windows_by_hand(name, rows, windows):
    assert Memory(config_of(name).layers, F32, rows, None).rings == windows
    assert Memory(config_of(name).layers, BF16, rows, None).rings == windows // 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", 2 * 2 * 128 * 1 * 32 * F32),  # 2 full layers; 100 tokens end in the second 64
        ("31b", 1 * 2 * 128 * 1 * 32 * F32),
    ],
)
def test_a_row_by_hand(name, expected):
    assert row_bytes(config_of(name).layers, 100, F32) == expected


@pytest.mark.parametrize(
    ("name", "widest", "waiting", "inputs", "ring", "vocab"),
    [
        # The last layers share K/V and have an MLP twice as wide: 80 + 3 · 192 + 2 · 4 · 32. Keys
        # and values of 8 sliding layers; 20 layers have per-layer inputs of 4.
        ("tiny", 80 + 576 + 256, 8 * 2 * 16, 4 * 20 * 4, 24 + 8, 1536),
        ("31b", 64 + 288 + 256, 5 * 2 * 2 * 16, 0, 8 + 8, 256),
        # And 2 of 8 experts a token: 2 · (64 + 3 · 32) beside the MLP.
        ("26b", 64 + 288 + 256 + 2 * (64 + 3 * 32), 4 * 2 * 2 * 16, 0, 8 + 8, 256),
    ],
)
def test_the_work_of_a_prompt_chunk_by_hand(name, widest, waiting, inputs, ring, vocab):
    config = config_of(name)
    values = 2 * widest + waiting + inputs
    for context, chunk, keys in (
        (4096, 1024, 4096),
        (1000, 1000, 1024),
        (1500, 1024, 1024),  # a second chunk of 476 is less work
    ):
        laps = 64 + ring  # the keys of a lap, rounded up, and of the one before
        scores, masks = 4 * 4 * chunk * keys, (1 + F32) * chunk * (keys + laps)  # 4 heads, float32
        expected = chunk * values * F32 + scores + masks + 4 * vocab
        assert work_bytes(config, context, 0, F32) == expected


def test_a_wide_round_may_be_more_work_than_a_prompt_chunk():
    assert work_bytes(config_of("tiny"), 1, 512, F32) == 10 * 4 * 512 * 1536


def test_attention_keeps_to_the_bound_that_the_plan_counts_on():
    assert fit.SCORE_BYTES == view.MAX_SCORES * F32


def test_weights_by_hand():
    def tensor(dtype: str, *shape: int) -> TensorInfo:
        return TensorInfo("x", dtype, shape, 0, 0, Path("x"))

    tensors = [tensor("BF16", 3, 5), tensor("F32", 7), tensor("U32", 4, 2), tensor("I64", 6)]
    assert weight_bytes(tensors, F32) == 4 * 15 + 4 * 7 + 4 * 8 + 8 * 6
    assert weight_bytes(tensors, BF16) == 2 * 15 + 2 * 7 + 4 * 8 + 8 * 6
    assert weight_bytes([], F32) == 0


@pytest.mark.parametrize(("name", "dtype"), [("31b", mx.float32), ("31b", mx.bfloat16)])
def test_weights_are_what_a_load_takes(name, dtype):
    checkpoint = open_target(folders(name)[0])
    mx.clear_cache()
    before = mx.get_active_memory()
    target = load_target(checkpoint, dtype)
    taken = mx.get_active_memory() - before
    expected = weight_bytes(checkpoint.tensors.values(), dtype.size)
    assert expected == pytest.approx(taken, rel=0.05)
    del target


PLAN = Plan(
    rows=3, limit=200_000_000, weights=1_000_000, drafter=200_000, windows=65_536, work=136_709_120
)  # fmt: skip


def test_the_sum_by_hand():
    assert PLAN.margin == 13_797_465
    assert PLAN.needed == 151_772_121
    assert PLAN.kv_budget == 200_000_000 - 151_772_121 + 65_536
    PLAN.check()


def test_what_does_not_fit_is_one_line_with_the_parts_and_the_remedy():
    short = Plan(3, PLAN.needed - 1, 1_000_000, 200_000, 65_536, 136_709_120)
    with pytest.raises(DoesNotFit) as caught:
        short.check()
    assert str(caught.value) == (
        "151.77 MB of memory are needed and 151.77 MB are there (weights 1.00 MB, drafter 0.20 MB, "
        "windows of 3 rows 0.07 MB, a step's work 136.71 MB, margin 13.80 MB); load a smaller or "
        "quantised checkpoint, or fewer rows (max_num_seqs)"
    )
    Plan(3, PLAN.needed, 1_000_000, 200_000, 65_536, 136_709_120).check()
    with pytest.raises(DoesNotFit, match=r"17\.30 GB"):
        Plan(1, 10**9, 17_300_000_000, 0, 0, 0).check()


# --- a load ---

LIMIT = 180_000_000  # bytes that the pair below fits in


def load(**options) -> mtp_mlx.LLM:
    target, drafter = folders("31b")
    return mtp_mlx.load(target, **{"draft_model": drafter, "max_num_seqs": 2} | options)


def test_a_pair_that_does_not_fit_is_refused_before_its_weights_are_read(monkeypatch):
    monkeypatch.setattr(runtime, "load_target", lambda *_: pytest.fail("read"))
    with pytest.raises(DoesNotFit, match="max_num_seqs"):
        load(memory_limit=1 << 20)
    monkeypatch.setattr(runtime, "available_memory", lambda: 1 << 20)
    with pytest.raises(DoesNotFit, match="max_num_seqs"):
        load()
    with pytest.raises(DoesNotFit):  # more than there is cannot be allowed
        load(memory_limit=1 << 40)


def test_what_is_left_is_the_budget_of_the_engine():
    with load(memory_limit=LIMIT) as llm:
        memory = engine_of(llm).memory
        assert memory.budget == llm.stats().kv_budget_bytes == runtime_of(llm)._kv_budget
        assert memory.rings < memory.budget < LIMIT
        row = memory.cost(4096 + 8)
        assert memory.budget > memory.rings + row  # so that a request of the whole context fits
        assert llm.generate([2, 9], max_tokens=3).token_ids


def test_requests_wait_for_memory_and_one_that_never_fits_is_refused():
    with load(memory_limit=LIMIT) as llm:
        memory = engine_of(llm).memory
        too_much = memory.budget - memory.rings - memory.cost(70)
    with load(memory_limit=LIMIT - too_much) as llm:  # for one row of 70 tokens
        with pytest.raises(DoesNotFit, match="lower max_tokens"):
            llm.generate([2, 9], max_tokens=4000)
        streams = [llm.stream([2, 9], max_tokens=60, temperature=0) for _ in range(2)]
        next(streams[1])  # after the whole of the first
        assert llm.stats().waiting == llm.stats().prefilling == 0
        assert llm.stats().kv_reserved_bytes == llm.stats().kv_budget_bytes
        assert sum(len(chunk.tokens) for chunk in streams[0]) == 60


@pytest.mark.parametrize("limit", [0, -1, 1.5, "0GB", "1 yard", "101%", "-5%", "", "1e9", True])
def test_a_limit_that_is_no_size_and_no_share_is_refused(limit):
    with pytest.raises(mtp_mlx.RequestError, match="memory_limit") as caught:
        load(memory_limit=limit)
    assert caught.value.param == "memory_limit"


def test_the_reference_keeps_to_no_limit_and_says_so():
    with pytest.raises(mtp_mlx.Unsupported, match="memory limit"):
        load(backend="numpy", memory_limit=1 << 30)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (7, 7),
        ("7", 7),
        ("12GB", 12 * 10**9),
        ("0.5 gib", 1 << 29),
        ("900MB", 9 * 10**8),
        ("1.5MiB", 3 << 19),
        ("70%", 700),
        ("0.01%", 1),
    ],
)
def test_sizes_and_shares(limit, expected):
    assert limit_bytes(limit, 1000) == expected


def test_a_share_is_one_of_the_whole_memory_and_no_more_than_may_be_taken(monkeypatch):
    monkeypatch.setattr(runtime, "available_memory", lambda: 75)
    monkeypatch.setattr(runtime.mx, "device_info", lambda: {"total_memory": 100})
    found = [runtime.limit_here(limit) for limit in (None, "40%", "100%", 8)]
    assert found == [75, 40, 75, 8]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, 75),
        ({"max_recommended_working_set_size": 60}, 60),
        ({"max_recommended_working_set_size": 90}, 75),
        ({"total_memory": 40}, 36),
    ],
)
def test_what_is_there_by_machine(info, expected, monkeypatch):
    monkeypatch.setattr(runtime.mx, "device_info", lambda: info)
    monkeypatch.setattr(runtime.mx, "get_active_memory", lambda: 5)
    pages = {"SC_PAGE_SIZE": 4, "SC_PHYS_PAGES": 25}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    assert runtime.available_memory() == expected - 5
