"""`mtp_mlx.reference` mirrors `mtp_mlx.model`: same names and arguments, same numbers."""

import importlib
import inspect
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType

import mlx.core as mx
import numpy as np
import pytest

import mtp_mlx.model as mlx_form
import mtp_mlx.reference as numpy_form
from mtp_mlx.config import ExpertSpec, LayerSpec, RopeSpec, read_drafter, read_target
from mtp_mlx.model import choose, drafter, ffn, head, logprobs, processors, rope, view
from mtp_mlx.reference import choose as np_choose
from mtp_mlx.reference import drafter as np_drafter
from mtp_mlx.reference import ffn as np_ffn
from mtp_mlx.reference import head as np_head
from mtp_mlx.reference import logprobs as np_logprobs
from mtp_mlx.reference import nn
from mtp_mlx.reference import processors as np_processors
from mtp_mlx.reference import rope as np_rope
from mtp_mlx.reference import view as np_view
from mtp_mlx.request import Sampling
from tests import tiny_configs
from tests.both_forms import (
    NUM_SLOTS,
    BothCaches,
    both_models,
    distance,
    random_array,
    run_history,
)

# float32 sums in another order: one operation differs in the last bits, and a random net blows that
# up, layer by layer. Measured at most 1.3e-4, of logits with a standard deviation of about 2; both
# forms are as far from the twin run in float64. A mistake shows as 1e-2 or more.
OPERATION_ATOL = 1e-5
MODEL_ATOL = 3e-4

MIRRORED = ("attention", "batch", "cache", "choose", "drafter", "ffn", "head",
            "logprobs", "processors", "rope", "routes", "target", "view")  # fmt: skip
NOT_MIRRORED = {
    "model.backend": "NumPy has one device",
    "model.kernels": "the programs of the CPU's kernels, which NumPy has not",
    "model.load": "reads MLX arrays; the twin's own loader expands what is quantised",
    "model.linear": "stands for mlx.nn; its twin is reference.nn",
    "model.norm": "stands for mlx.nn; its twin is reference.nn",
    "model.tail": "parts of target.DecoderLayer as compiled functions",
    "model.weights": "fills and quantises mlx.nn modules; the twin's take their tensors when made",
    "reference.load": "see model.load",
    "reference.nn": "stands for mlx.nn",
    "reference.runtime": "serves requests with reference.decode; stands for engine.runtime",
    "reference.decode": "the specification of the engine, not of the model",
}
ONLY_MLX = {
    "cache.FullLayer": "storage: the twin keeps one list a row",
    "cache.WindowLayer": "storage: the twin keeps one list a row",
    "cache.Cache.limit": "storage: the twin's memory is not limited",
    "cache.Cache.full_bytes": "storage: the twin's memory is not counted",
    "cache.Cache.span": "the twin's texts are not kept",
    "cache.Cache.window_at": "the twin's texts are not kept",
    "cache.Cache.restore": "the twin's texts are not kept",
    "cache.ring_positions": "storage: the twin has no ring",
    "cache.round_up": "storage: the twin reads exactly the keys there are",
    "view.View.narrowed": "the twin drafts one row at a time",
    "view.View.whole": "the twin drafts one row at a time",
    "view.WindowPlan": "storage: the twin has no ring and pads nothing",
    "view.Laps": "storage: the twin has no ring",
    "view.Mask": "the twin's masks are arrays",
    "view.last_view": "the twin runs every token through every layer",
    "target.Target.prefill": "the twin runs every token through every layer",
    "ffn.gelu_own": "gelu_tanh as the CPU takes it",
    "ffn.geglu": "one kernel where the twin has two operations",
    "ffn.ExpertLinear": "gathers matrices for a sorted batch; the twin goes token by token",
    "ffn.QuantizedExpertLinear": "the twin's weights are never quantised",
    "ffn.SwitchGLU": "gathers matrices for a sorted batch; the twin goes token by token",
}
# The twin's modules take their tensors, last, when made; mlx.nn modules are filled later.
LATE = [("weights", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
DUNDERS = ("__init__", "__call__")
MAKERS = ("__init__", "make_experts")


def public(module: ModuleType) -> dict[str, object]:
    """Public functions and classes that the module itself defines."""
    return {
        name: member
        for name, member in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(member) or inspect.isfunction(member))
        and member.__module__ == module.__name__
    }


def methods(owner: type) -> dict[str, FunctionType]:
    """Public methods and properties, and what a call and a construction take."""
    found = {}
    for name, member in vars(owner).items():
        if isinstance(member, staticmethod):
            member = member.__func__
        if isinstance(member, property):
            member = member.fget
        if isinstance(member, FunctionType) and (name in DUNDERS or not name.startswith("_")):
            found[name] = member
    return found


def check_arguments(ours: FunctionType, theirs: FunctionType) -> None:
    expected, found = (
        [(each.name, each.kind) for each in inspect.signature(function).parameters.values()]
        for function in (ours, theirs)
    )
    if theirs.__name__ in MAKERS and found != expected:
        expected = expected + LATE
    assert found == expected, theirs.__qualname__


def modules_of(package: ModuleType) -> set[str]:
    assert package.__file__ is not None
    found = {path.stem for path in Path(package.__file__).parent.glob("*.py")}
    return {f"{package.__name__.split('.')[-1]}.{stem}" for stem in found - {"__init__"}}


def test_every_module_has_its_twin():
    found = modules_of(mlx_form) | modules_of(numpy_form)
    twins = {f"{side}.{name}" for side in ("model", "reference") for name in MIRRORED}
    assert found - NOT_MIRRORED.keys() == twins


@pytest.mark.parametrize("name", MIRRORED)
def test_twins_have_the_same_names_and_arguments(name):
    ours = public(importlib.import_module(f"mtp_mlx.model.{name}"))
    theirs = public(importlib.import_module(f"mtp_mlx.reference.{name}"))
    expected = {key for key in ours if f"{name}.{key}" not in ONLY_MLX}
    assert theirs.keys() == expected
    for key in sorted(expected):
        mlx_member, numpy_member = ours[key], theirs[key]
        if not inspect.isclass(mlx_member):
            check_arguments(mlx_member, numpy_member)
            continue
        mlx_methods, numpy_methods = methods(mlx_member), methods(numpy_member)
        mlx_methods = {
            at: made for at, made in mlx_methods.items() if f"{name}.{key}.{at}" not in ONLY_MLX
        }
        assert numpy_methods.keys() == mlx_methods.keys(), key
        for at in mlx_methods:
            check_arguments(mlx_methods[at], numpy_methods[at])


def test_constants_of_view_are_equal():
    assert np_view.DRAFT_EXTRA_KEYS == view.DRAFT_EXTRA_KEYS
    assert [np_view.draft_position(n) for n in range(1, 99)] == [
        view.draft_position(n) for n in range(1, 99)
    ]


FULL = LayerSpec(
    index=0, window=None, heads=4, kv_heads=2, head_dim=16, rope=RopeSpec(16, 1e6, 2, 1.0),
    reads_from=0, owns_cache=True, keys_are_values=False, ffn_dim=8, experts=None,
)  # fmt: skip
SLIDING = replace(FULL, index=1, window=8, rope=RopeSpec(16, 1e4, 8, 2.0), reads_from=1)
ROWS = [
    Sampling(),
    Sampling(temperature=1.0, seed=1),
    Sampling(temperature=0.7, top_k=5, seed=2**62),
    Sampling(temperature=1.3, top_p=0.6, seed=3),
    Sampling(temperature=2.0, min_p=0.2, seed=4),
    Sampling(temperature=1.0, top_k=12, top_p=0.8, min_p=0.05, seed=5),
    Sampling(temperature=1.0, top_k=1000, top_p=1e-6, seed=6),
]


@pytest.mark.parametrize("spec", [FULL.rope, SLIDING.rope, RopeSpec(512, 1e6, 64, 1.0)])
@pytest.mark.parametrize("position", [0, 7, 1000, 100_000])
def test_rotation(spec, position):
    x = random_array(0, 5, 3, spec.head_dim)
    positions = np.arange(position, position + 5, dtype=np.int32)
    ours = rope.rotate(mx.array(x), rope.Angles(spec, mx.array(positions)))
    theirs = np_rope.rotate(x, np_rope.Angles(spec, positions))
    # A float32 frequency is good to 1e-7 of itself, and so an angle to 1e-7 of the position.
    assert distance(ours, theirs) <= OPERATION_ATOL + 1e-6 * position


def test_attend_with_a_mask():
    queries, keys, values = (random_array(seed, 2, heads, size, 16) for seed, heads, size in (
        (0, 4, 3), (1, 2, 9), (2, 2, 9)))  # fmt: skip
    mask = np.random.RandomState(3).rand(2, 1, 3, 9) < 0.5
    mask[..., 0] = True
    arrays = (mx.array(each) for each in (queries, keys, values))
    ours = view.attend(*arrays, view.Mask(mx.array(mask)))
    assert distance(ours, np_view.attend(queries, keys, values, mask)) <= OPERATION_ATOL


def test_activations():
    x = random_array(0, 4, 50) * 4
    assert distance(ffn.gelu_tanh(mx.array(x)), np_ffn.gelu_tanh(x)) <= OPERATION_ATOL
    for cap in (None, 3.0):
        assert distance(head.softcap(mx.array(x), cap), np_head.softcap(x, cap)) <= OPERATION_ATOL


def test_noise_keys_are_equal():
    for seed in (0, 1, 12345, 2**63 - 1):
        keys = [choose.noise_key(seed, position) for position in (0, 1, 2, 99_999, 2**24)]
        twins = [np_choose.noise_key(seed, position) for position in (0, 1, 2, 99_999, 2**24)]
        assert keys == twins
        assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("ids", [np.arange(262_144), np.array([[7, 3, 262_143], [0, 1, 2]])])
def test_noise(ids):
    keys = np.array([[1, 2], [0xFFFFFFFF, 0]], dtype=np.uint32)
    ours = choose.gumbel(mx.array(keys), mx.array(ids.astype(np.int32)))
    theirs = np_choose.gumbel(keys, ids.astype(np.int32))
    assert np.isfinite(theirs).all()
    assert distance(ours, theirs) <= OPERATION_ATOL


@pytest.mark.parametrize("with_ids", [False, True])
def test_choices_are_equal(with_ids):
    for seed in range(20):
        scores = random_array(seed, len(ROWS), 50) * 3
        orders = [np.random.RandomState(row).permutation(64)[:50] for row in range(len(ROWS))]
        ids = np.stack(orders).astype(np.int32) if with_ids else None
        positions = [100 * seed + row for row in range(len(ROWS))]
        for rows in (ROWS, ROWS[1:], ROWS[:1], ROWS[1:2], ROWS[4:5]):
            part = slice(0, len(rows))
            ours = choose.choose(
                head.Logits(mx.array(scores[part]), None if ids is None else mx.array(ids[part])),
                choose.Choice(rows, positions[part]),
            )
            logits = np_head.Logits(scores[part], None if ids is None else ids[part])
            theirs = np_choose.choose(logits, np_choose.Choice(rows, positions[part]))
            assert theirs.dtype == np.int32
            assert np.array(ours).tolist() == theirs.tolist()


@pytest.mark.parametrize("with_ids", [False, True])
def test_processed_scores_are_equal(with_ids):
    """To the bit: every processor is one float32 operation after another."""
    random = np.random.default_rng(int(with_ids))
    vocab, width = 70, 50 if with_ids else 70
    for _ in range(20):
        scores = random_array(int(random.integers(1 << 30)), 6, width) * 4
        ids = np.stack([random.permutation(vocab)[:width] for _ in scores]).astype(np.int32)
        ids = ids if with_ids else None
        rows = sorted(int(row) for row in random.permutation(6)[: random.integers(1, 7)])
        samplings = [
            Sampling(
                repetition_penalty=float(random.choice([1.0, 0.7, 1.3])),
                presence_penalty=float(random.choice([0.0, 1.1, -0.3])),
                frequency_penalty=float(random.choice([0.0, 0.13])),
                logit_bias=((int(random.integers(vocab)), 1.3),),
                banned=(int(random.integers(vocab)),),
            )
            for _ in rows
        ]
        texts = [random.integers(0, vocab, (2, 15)) for _ in rows]
        forms = []
        for form, kind, array in (
            (processors, head.Logits, mx.array),
            (np_processors, np_head.Logits, np.array),
        ):
            stack = mx.stack if form is processors else np.stack
            bias = stack([form.biases(each, vocab) for each in samplings])
            prompt, reply = (
                stack([form.counts(text[part], vocab) for text in texts]) for part in (0, 1)
            )
            todo = form.Processors(rows, samplings, bias, prompt, reply)
            logits = kind(array(scores), None if ids is None else array(ids))
            forms.append(np.array(form.process(logits, todo).scores))
        assert (forms[0] == forms[1]).all()


def test_masks_are_equal():
    random = np.random.default_rng(3)
    scores = random_array(3, 4, 70)
    masks = random.integers(0, 1 << 32, (3, 3), dtype=np.uint32)
    ours = processors.allow(mx.array(scores), [0, 2, 3], mx.array(masks))
    assert (np.array(ours) == np_processors.allow(scores, [0, 2, 3], masks)).all()


@pytest.mark.parametrize("count", [0, 1, 20])
def test_log_probabilities(count):
    """With ties, of which the lowest ids are named."""
    for size in (50, 4096):
        scores = np.round(random_array(count, 9, size) * 6, 1)
        ids = np.arange(18, dtype=np.int32).reshape(9, 2)
        own, best, values = logprobs.log_probabilities(mx.array(scores), mx.array(ids), count)
        np_own, np_best, np_values = np_logprobs.log_probabilities(scores, ids, count)
        assert distance(own, np_own) <= OPERATION_ATOL
        assert (np.sort(np.array(best)) == np.sort(np_best)).all()
        assert np.abs(np.sort(np.array(values)) - np.sort(np_values)).max(initial=0.0) <= (
            OPERATION_ATOL
        )


def test_filters_keep_the_same_tokens():
    rows = ROWS[1:]
    positions = [0] * len(rows)
    scores = np.round(random_array(0, len(rows), 50) * 3, 1)  # with ties
    ours = choose.filter_threshold(mx.array(scores), choose.Choice(rows, positions))
    theirs = np_choose.filter_threshold(scores, np_choose.Choice(rows, positions))
    assert theirs.shape == (len(rows), 1)
    assert ((scores >= np.array(ours)) == (scores >= theirs)).all()
    for row in (rows[:1], []):
        at = [0] * len(row)
        assert choose.filter_threshold(mx.array(scores[:1]), choose.Choice(row, at)) is None
        assert np_choose.filter_threshold(scores[:1], np_choose.Choice(row, at)) is None


@pytest.mark.parametrize("num_tokens", [3, 40])
def test_experts(num_tokens):
    spec = replace(FULL, experts=ExpertSpec(num_experts=8, top_k=3, width=12))
    shapes = {
        "router.proj.weight": (8, 16), "router.scale": (16,), "router.per_expert_scale": (8,),
        "experts.switch_glu.gate_proj.weight": (8, 12, 16),
        "experts.switch_glu.up_proj.weight": (8, 12, 16),
        "experts.switch_glu.down_proj.weight": (8, 16, 12),
    }  # fmt: skip
    weights = {key: random_array(i, *shape) for i, (key, shape) in enumerate(shapes.items())}
    router, experts = ffn.make_experts(spec, 16, 1e-6)
    for name, module in (("router.", router), ("experts.", experts)):
        own = [(key, mx.array(array)) for key, array in weights.items() if key.startswith(name)]
        module.load_weights([(key.removeprefix(name), array) for key, array in own])
    twins = np_ffn.make_experts(spec, 16, 1e-6, nn.Tensors(weights, "test"))
    x = random_array(99, num_tokens, 16)
    ids, shares = router(mx.array(x))
    np_ids, np_shares = twins[0](x)
    order = np.argsort(np.array(ids), axis=-1), np.argsort(np_ids, axis=-1)
    assert (np.sort(np.array(ids)) == np.sort(np_ids)).all()
    sorted_shares = (np.take_along_axis(np.array(shares), order[0], axis=-1),
                     np.take_along_axis(np_shares, order[1], axis=-1))  # fmt: skip
    assert np.abs(sorted_shares[0] - sorted_shares[1]).max() <= OPERATION_ATOL
    ours, theirs = experts(mx.array(x), ids, shares), twins[1](x, np_ids, np_shares)
    assert distance(ours / 100, theirs / 100) <= OPERATION_ATOL  # of values up to about 100


@pytest.mark.parametrize("seed", range(4))
def test_attention_over_the_cache_after_any_history(seed):
    layers = (
        FULL,
        SLIDING,
        replace(FULL, index=2, reads_from=0, owns_cache=False),
        replace(SLIDING, index=3, owns_cache=False),
    )
    both = BothCaches(layers, seed)

    def check(ours, theirs, num_tokens):
        for layer in (0, 1):
            queries = both.random.standard_normal((num_tokens, 4, 16)).astype(np.float32)
            found = ours.attend(layer, mx.array(queries))
            assert distance(found, theirs.attend(layer, queries)) <= OPERATION_ATOL

    def forward(blocks, *, is_chunk=False):
        ours, theirs = both.batches(blocks, 64, is_chunk=is_chunk)
        views = view.target_view(both.ours, ours), np_view.target_view(both.theirs, theirs)
        num_tokens = sum(blocks.values())
        for layer in (0, 1):
            keys, values = both.random.standard_normal((2, num_tokens, 2, 16)).astype(np.float32)
            views[0].write(layer, mx.array(keys), mx.array(values))
            views[1].write(layer, keys, values)
        check(*views, num_tokens)

    def draft(slots):
        for extra_keys, back in ((0, 0), (1, 0), (0, 1)):
            ours = view.draft_view(both.ours, slots, extra_keys, back)
            theirs = np_view.draft_view(both.theirs, slots, extra_keys, back)
            lengths = [both.ours.lengths[slot] for slot in slots]
            assert theirs.positions.tolist() == [length - back for length in lengths]
            assert np.array(ours.positions).tolist() == theirs.positions.tolist()
            check(ours, theirs, len(slots))

    run_history(both, forward, draft, 120)


def by_id(scores: np.ndarray, ids: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Scores [N, M] and ids in the order of ids: which cluster comes first is not specified."""
    if ids is None:
        ids = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(ids, axis=-1)
    return np.take_along_axis(scores, order, axis=-1), np.take_along_axis(ids, order, axis=-1)


@pytest.mark.parametrize("variant", tiny_configs.VARIANTS)
def test_target_and_drafter_after_any_history(variant):
    pair = tiny_configs.pair(variant, seed=1)
    ours, our_drafter, theirs, their_drafter = both_models(pair)
    both = BothCaches(pair.target_config.layers, seed=0)
    hidden = np.zeros((NUM_SLOTS, pair.target_config.hidden_size), dtype=np.float32)

    def forward(blocks, *, is_chunk=False):
        batches = both.batches(blocks, pair.target_config.vocab_size, is_chunk=is_chunk)
        found, expected = ours(batches[0], both.ours), theirs(batches[1], both.theirs)
        assert distance(found, expected) <= MODEL_ATOL
        assert distance(ours.logits(found), theirs.logits(expected)) <= MODEL_ATOL
        hidden[sorted(blocks)] = expected[: len(blocks)]

    def draft(slots):
        tokens = np.arange(len(slots), dtype=np.int32)
        state, views = hidden[list(slots)], (
            view.draft_view(both.ours, slots), np_view.draft_view(both.theirs, slots))  # fmt: skip
        for _ in range(3):
            embedded = theirs.embed(tokens)
            assert distance(ours.embed(mx.array(tokens)), embedded) <= OPERATION_ATOL
            found, state_found = our_drafter.step(mx.array(embedded), mx.array(state), views[0])
            expected, state = their_drafter.step(embedded, state, views[1])
            assert distance(state_found, state) <= MODEL_ATOL
            ids = None if found.ids is None else np.array(found.ids)
            scores = by_id(np.array(found.scores), ids), by_id(expected.scores, expected.ids)
            assert (scores[0][1] == scores[1][1]).all()
            assert np.abs(scores[0][0] - scores[1][0]).max() <= MODEL_ATOL
            tokens = np_choose.choose(expected, np_choose.Choice([Sampling()] * len(slots), slots))

    run_history(both, forward, draft, 30)


def test_a_drafter_layer_may_carry_the_number_of_the_target_layer_it_reads():
    text = {"layer_types": [tiny_configs.SLIDING] * 3 + [tiny_configs.FULL], "num_hidden_layers": 4}
    values = tiny_configs.target_dict("31b")
    config = read_target(values | {"text_config": values["text_config"] | text}, "target")
    paired = read_drafter(tiny_configs.drafter_dict("31b"), "drafter").paired_with(config)
    assert [layer.reads_from for layer in paired.layers] == [2, 2, 2, 3]
    weights = tiny_configs.pair("31b", seed=1).drafter_weights
    np_drafter.Drafter(paired, weights)
    drafter.Drafter(paired, {key: mx.array(array) for key, array in weights.items()})
