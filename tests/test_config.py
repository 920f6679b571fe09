"""The five published pairs as their config.json says them, and what is wrong with a config."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from mtp_mlx.config import (
    CentroidSpec,
    ExpertSpec,
    RopeSpec,
    TargetConfig,
    read_drafter,
    read_target,
)
from mtp_mlx.errors import CheckpointError, DrafterMismatch, UnsupportedModel
from tests.golden.recipe import dialect_523

SLIDING, FULL = "sliding_attention", "full_attention"
VOCAB = 262144
TARGET, DRAFTER = "target/config.json", "drafter/config.json"
DIALECTS: dict[str, Callable[[dict], dict]] = {"classic": copy.deepcopy, "5.23": dialect_523}
Json = dict[str, Any]
Change = Callable[[Json], object]


@dataclass(frozen=True)
class Published:
    """What tells the five pairs apart: their model cards, and who reads whose K/V.

    `owners` is the number of layers with a cache, `donors` the last of them that slides and the
    last that is full, which the drafter reads.
    """

    hidden: int
    pattern: str
    heads: int
    kv_heads: int
    global_kv_heads: int | None
    ffn: int
    window: int
    positions: int
    owners: int
    donors: tuple[int, int]
    drafter_width: int
    drafter_ffn: int
    drafter_heads: int
    unified: bool = False

    @property
    def is_small(self) -> bool:
        return self.global_kv_heads is None


PUBLISHED = {
    "e2b": Published(
        1536, "SSSSF" * 7, 8, 1, None, 6144, 512, 131072, 15, (13, 14), 256, 2048, 4
    ),
    "e4b": Published(
        2560, "SSSSSF" * 7, 8, 2, None, 10240, 512, 131072, 24, (22, 23), 256, 2048, 4
    ),
    "12b": Published(
        3840, "SSSSSF" * 8, 16, 8, 1, 15360, 1024, 262144, 48, (46, 47), 1024, 8192, 16, True
    ),
    "26b": Published(
        2816, "SSSSSF" * 5, 16, 8, 2, 2112, 1024, 262144, 30, (28, 29), 1024, 8192, 16
    ),
    "31b": Published(
        5376, "SSSSSF" * 10, 32, 16, 4, 21504, 1024, 262144, 60, (58, 59), 1024, 8192, 32
    ),
}  # fmt: skip
NAMES = tuple(PUBLISHED)


def target_json(name: str) -> Json:
    """The target's config.json, classic dialect."""
    model = PUBLISHED[name]
    family = "gemma4_unified" if model.unified else "gemma4"
    text = _text_json(model, model.pattern) | {
        "hidden_size": model.hidden,
        "hidden_size_per_layer_input": 256 if model.is_small else 0,
        "intermediate_size": model.ffn,
        "model_type": f"{family}_text",
        "num_attention_heads": model.heads,
        "num_kv_shared_layers": len(model.pattern) - model.owners,
        "use_double_wide_mlp": name == "e2b",
        "vocab_size_per_layer_input": VOCAB,
    }
    if name == "26b":
        text |= {"enable_moe_block": True, "num_experts": 128, "top_k_experts": 8}
        text |= {"moe_intermediate_size": 704}
    return {
        "eos_token_id": [1, 106],
        "model_type": family,
        "text_config": text,
        "tie_word_embeddings": True,
        "vision_config": {"hidden_size": 768, "model_type": "gemma4_vision"},
    }


def drafter_json(name: str) -> Json:
    """The assistant's config.json, classic dialect."""
    model = PUBLISHED[name]
    family = "gemma4_unified" if model.unified else "gemma4"
    text = _text_json(model, "SSSF") | {
        "final_logit_softcapping": None,
        "hidden_size": model.drafter_width,
        "hidden_size_per_layer_input": 0,
        "intermediate_size": model.drafter_ffn,
        "model_type": f"{family}_text",
        "num_attention_heads": model.drafter_heads,
        "num_kv_shared_layers": 4,
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 0,
    }
    return {
        "backbone_hidden_size": model.hidden,
        "centroid_intermediate_top_k": 32,
        "model_type": f"{family}_assistant",
        "num_centroids": 2048,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": model.is_small,
    }


def _text_json(model: Published, pattern: str) -> Json:
    """What the text configs of a pair have in common."""
    return {
        "attention_bias": False,
        "attention_k_eq_v": not model.is_small,
        "enable_moe_block": False,
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "global_head_dim": 512,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": [SLIDING if letter == "S" else FULL for letter in pattern],
        "max_position_embeddings": model.positions,
        "moe_intermediate_size": None,
        "num_experts": None,
        "num_global_key_value_heads": model.global_kv_heads,
        "num_hidden_layers": len(pattern),
        "num_key_value_heads": model.kv_heads,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1e6, "rope_type": "proportional"},
            SLIDING: {"rope_theta": 1e4, "rope_type": "default"},
        },
        "sliding_window": model.window,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": None if model.is_small else "vision",
        "vocab_size": VOCAB,
    }


def target_of(name: str, change: Change = lambda top: None, dialect: str = "classic"):
    top = target_json(name)
    change(top)
    return read_target(DIALECTS[dialect](top), TARGET)


def drafter_of(name: str, change: Change = lambda top: None, dialect: str = "classic"):
    top = drafter_json(name)
    change(top)
    return read_drafter(DIALECTS[dialect](top), DRAFTER)


every_model = pytest.mark.parametrize("name", NAMES)
every_dialect = pytest.mark.parametrize("dialect", DIALECTS)


# What the five pairs are.


@every_dialect
@every_model
def test_layers_own_or_read_the_published_keys_and_values(name, dialect):
    model, config = PUBLISHED[name], target_of(name, dialect=dialect)
    slides, fulls = model.donors
    assert config.donors == {"sliding": slides, "full": fulls}
    for layer, letter in zip(config.layers, model.pattern, strict=True):
        donor = slides if letter == "S" else fulls
        assert layer.reads_from == (layer.index if layer.index < model.owners else donor)
        assert config.owns_cache(layer.index) == (layer.index < model.owners)


@every_dialect
@every_model
def test_layers_have_the_published_geometry(name, dialect):
    model, config = PUBLISHED[name], target_of(name, dialect=dialect)
    sliding_rope = RopeSpec(head_dim=256, theta=1e4, pairs=128, factor=1.0)
    full_rope = RopeSpec(head_dim=512, theta=1e6, pairs=64, factor=1.0)
    experts = ExpertSpec(num_experts=128, top_k=8, width=704) if name == "26b" else None
    for layer, letter in zip(config.layers, model.pattern, strict=True):
        slides = letter == "S"
        is_wide = name == "e2b" and layer.index >= model.owners
        assert layer.kind == ("sliding" if slides else "full")
        assert layer.window == (model.window if slides else None)
        assert layer.heads == model.heads
        assert layer.head_dim == (256 if slides else 512)
        assert layer.kv_heads == (
            model.kv_heads if slides else model.global_kv_heads or model.kv_heads
        )
        assert layer.rope == (sliding_rope if slides else full_rope)
        assert layer.ffn_dim == (12288 if is_wide else model.ffn)
        assert layer.keys_are_values == (not slides and not model.is_small)
        assert layer.experts == experts


@every_model
def test_the_rest_of_a_target_is_as_published(name):
    model, config = PUBLISHED[name], target_of(name)
    assert config.model_type == ("gemma4_unified" if name == "12b" else "gemma4")
    assert (config.hidden_size, config.vocab_size) == (model.hidden, VOCAB)
    assert config.max_positions == model.positions
    assert config.per_layer_dim == (256 if model.is_small else 0)
    assert (config.rms_norm_eps, config.logit_softcap) == (1e-6, 30.0)
    assert config.eos_ids == (1, 106)
    assert config.quantization is None


@every_dialect
@every_model
def test_drafters_read_the_last_owner_of_each_kind(name, dialect):
    model = PUBLISHED[name]
    drafter = drafter_of(name, dialect=dialect).paired_with(target_of(name))
    slides, fulls = model.donors
    assert [layer.reads_from for layer in drafter.layers] == [slides, slides, slides, fulls]
    assert [layer.head_dim for layer in drafter.layers] == [256, 256, 256, 512]
    assert [layer.window for layer in drafter.layers] == [model.window] * 3 + [None]
    assert {layer.heads for layer in drafter.layers} == {model.drafter_heads}
    assert {layer.ffn_dim for layer in drafter.layers} == {model.drafter_ffn}
    assert (drafter.backbone_hidden_size, drafter.hidden_size) == (
        model.hidden,
        model.drafter_width,
    )
    assert drafter.logit_softcap is None
    assert drafter.centroids == (CentroidSpec(2048, 32) if model.is_small else None)


@every_model
def test_both_dialects_give_equal_tables(name):
    assert target_of(name, dialect="5.23") == target_of(name)
    assert drafter_of(name, dialect="5.23") == drafter_of(name)


@pytest.mark.parametrize("is_padded", [True, False])
@every_model
def test_indices_of_per_layer_config_may_be_padded_with_zeros(name, is_padded):
    top = dialect_523(target_json(name))
    given = top["text_config"]["per_layer_config"]
    assert {len(key) for key in given} == {2}
    if not is_padded:
        top["text_config"]["per_layer_config"] = {str(int(key)): given[key] for key in given}
    assert read_target(top, TARGET).layers == target_of(name).layers


@every_dialect
@every_model
def test_a_text_only_config_gives_the_same_model(name, dialect):
    text = DIALECTS[dialect](target_json(name)["text_config"])
    found = read_target(text, TARGET)
    whole = target_of(name)
    assert found.model_type.endswith("_text")
    assert replace(found, model_type=whole.model_type, eos_ids=whole.eos_ids) == whole


@pytest.mark.parametrize("value", ["absent", 0, 4])
def test_a_drafter_shares_all_its_layers_whether_it_says_so_or_not(value):
    def change(top: Json) -> None:
        top["text_config"]["num_kv_shared_layers"] = value
        if value == "absent":
            del top["text_config"]["num_kv_shared_layers"]

    assert drafter_of("31b", change) == drafter_of("31b")


# What is missing.

TEXT_KEYS = (
    "global_head_dim", "head_dim", "hidden_activation", "hidden_size", "intermediate_size",
    "layer_types", "max_position_embeddings", "num_attention_heads", "num_global_key_value_heads",
    "num_hidden_layers", "num_key_value_heads", "num_kv_shared_layers", "rms_norm_eps",
    "rope_parameters", "rope_parameters.full_attention", "rope_parameters.sliding_attention",
    "rope_parameters.full_attention.partial_rotary_factor",
    "rope_parameters.full_attention.rope_theta", "rope_parameters.full_attention.rope_type",
    "rope_parameters.sliding_attention.rope_theta", "rope_parameters.sliding_attention.rope_type",
    "sliding_window", "vocab_size",
)  # fmt: skip
EXPERT_KEYS = ("num_experts", "top_k_experts", "moe_intermediate_size")
TARGET_KEYS = (
    "model_type",
    "text_config",
    *(f"text_config.{key}" for key in TEXT_KEYS + EXPERT_KEYS),
)
DRAFTER_KEYS = (
    "model_type",
    "text_config",
    "backbone_hidden_size",
    "num_centroids",
    "centroid_intermediate_top_k",
    *(
        f"text_config.{key}"
        for key in TEXT_KEYS
        if key not in ("max_position_embeddings", "num_kv_shared_layers")
        and key != "num_global_key_value_heads"
    ),
)


def without(dotted: str) -> Change:
    return lambda top: _parent(top, dotted).pop(dotted.rsplit(".", 1)[-1])


def having(dotted: str, value: object) -> Change:
    return lambda top: _parent(top, dotted).update({dotted.rsplit(".", 1)[-1]: value})


def _parent(top: Json, dotted: str) -> Json:
    for key in dotted.split(".")[:-1]:
        top = top[key]
    return top


@pytest.mark.parametrize("key", TARGET_KEYS)
def test_a_target_without_a_shape_key_is_an_error_that_names_it(key):
    with pytest.raises(CheckpointError) as caught:
        target_of("26b", without(key))
    assert str(caught.value) == f"{TARGET}: {key} is missing"


@pytest.mark.parametrize("key", DRAFTER_KEYS)
def test_a_drafter_without_a_shape_key_is_an_error_that_names_it(key):
    with pytest.raises(CheckpointError) as caught:
        drafter_of("e2b", without(key))
    assert str(caught.value) == f"{DRAFTER}: {key} is missing"


@pytest.mark.parametrize("key", ["head_dim", "num_hidden_layers", "vocab_size", "sliding_window"])
def test_a_shape_key_that_is_null_is_an_error_that_names_it(key):
    with pytest.raises(CheckpointError, match=f"text_config.{key} must be .*, found None"):
        target_of("31b", having(f"text_config.{key}", None))


def test_a_full_layer_that_per_layer_config_forgets_is_named():
    top = dialect_523(target_json("31b"))
    del top["text_config"]["per_layer_config"]["05"]
    with pytest.raises(CheckpointError, match="per_layer_config has no entry for layer 5"):
        read_target(top, TARGET)


@pytest.mark.parametrize(
    "key", ["x", "", "²", "-5", "5" * 5000, "٥"], ids=lambda key: ascii(key)[:20]
)
def test_a_key_of_per_layer_config_that_is_no_index_counts_for_no_layer(key):
    top = dialect_523(target_json("31b"))
    given = top["text_config"]["per_layer_config"]
    given[key] = given.pop("05")
    with pytest.raises(CheckpointError, match="per_layer_config has no entry for layer 5"):
        read_target(top, TARGET)


# What is out of range.

NAN, INFINITY = float("nan"), float("inf")
WRONG_VALUES = [
    ("num_hidden_layers", 1_000_000_000), ("num_hidden_layers", 0), ("num_hidden_layers", "35"),
    ("num_hidden_layers", 61), ("num_hidden_layers", 59), ("num_hidden_layers", True),
    ("head_dim", 0), ("head_dim", 255), ("head_dim", 1 << 20), ("head_dim", 256.0),
    ("global_head_dim", 0), ("global_head_dim", -512), ("global_head_dim", 511),
    ("vocab_size", -1), ("vocab_size", 0), ("vocab_size", 1 << 40), ("vocab_size", [262144]),
    ("sliding_window", 0), ("sliding_window", -1), ("sliding_window", 1 << 60),
    ("num_key_value_heads", 0), ("num_key_value_heads", 5), ("num_key_value_heads", 64),
    ("num_global_key_value_heads", 0), ("num_global_key_value_heads", 3),
    ("num_attention_heads", 0), ("num_attention_heads", 131072), ("num_attention_heads", 17),
    ("hidden_size", 0), ("hidden_size", 10**19), ("hidden_size", {}),
    ("intermediate_size", -5), ("intermediate_size", 1 << 50),
    ("max_position_embeddings", 0), ("max_position_embeddings", 1 << 50),
    ("num_kv_shared_layers", -1), ("num_kv_shared_layers", 60), ("num_kv_shared_layers", 5.5),
    ("hidden_size_per_layer_input", -1), ("hidden_size_per_layer_input", 1 << 30),
    ("layer_types", [SLIDING] * 59), ("layer_types", []), ("layer_types", SLIDING),
    ("layer_types", [SLIDING] * 59 + ["linear_attention"]), ("layer_types", [1] * 60),
    ("layer_types", [[SLIDING]] * 60), ("layer_types", [None] * 60), ("layer_types", {}),
    ("rms_norm_eps", NAN), ("rms_norm_eps", -1e-6), ("rms_norm_eps", "1e-6"),
    ("rms_norm_eps", INFINITY), ("final_logit_softcapping", NAN), ("final_logit_softcapping", 0),
    ("final_logit_softcapping", -30.0), ("hidden_activation", "silu"), ("attention_bias", True),
    ("attention_k_eq_v", "yes"), ("enable_moe_block", 1), ("tie_word_embeddings", False),
    ("rope_parameters", [1]), ("rope_parameters", None), ("rope_parameters.full_attention", 3),
    ("rope_parameters.full_attention.partial_rotary_factor", 1.5),
    ("rope_parameters.full_attention.partial_rotary_factor", NAN),
    ("rope_parameters.full_attention.rope_theta", 0),
    ("rope_parameters.full_attention.rope_theta", NAN),
    ("rope_parameters.full_attention.rope_type", "yarn"),
    ("rope_parameters.full_attention.rope_type", ["default"]),
    ("rope_parameters.full_attention.factor", 0.0),
    ("rope_parameters.sliding_attention.rope_type", "linear"),
    ("eos_token_id", 262144), ("eos_token_id", -1), ("eos_token_id", [1, "106"]),
    ("eos_token_id", [[1]]), ("eos_token_id", 1.0), ("eos_token_id", True),
]  # fmt: skip
ALSO_NAMES = {
    ("num_hidden_layers", "61"): "layer_types",
    ("num_hidden_layers", "59"): "layer_types",
    ("num_key_value_heads", "5"): "num_attention_heads",
    ("num_key_value_heads", "64"): "num_attention_heads",
    ("num_global_key_value_heads", "3"): "num_attention_heads",
    ("global_head_dim", "511"): "head_dim",
}


@pytest.mark.parametrize(("key", "value"), WRONG_VALUES, ids=lambda value: repr(value)[:40])
def test_a_value_out_of_range_is_an_error_that_names_it(key, value):
    with pytest.raises(CheckpointError) as caught:
        target_of("31b", having(f"text_config.{key}", value))
    message = str(caught.value)
    named = ALSO_NAMES.get((key, repr(value)), key)
    assert message.startswith(f"{TARGET}: text_config.{named} must be ")
    assert ", found " in message
    assert "\n" not in message
    assert len(message) < 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_experts", 0), ("num_experts", 1 << 40), ("top_k_experts", 0), ("top_k_experts", 129),
        ("moe_intermediate_size", 0), ("moe_intermediate_size", None),
    ],
)  # fmt: skip
def test_a_mixture_out_of_range_is_an_error_that_names_it(key, value):
    with pytest.raises(CheckpointError, match=f"text_config.{key} must be an integer from 1 to"):
        target_of("26b", having(f"text_config.{key}", value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backbone_hidden_size", 0),
        ("num_centroids", 2047),
        ("num_centroids", 0),
        ("centroid_intermediate_top_k", 2049),
        ("text_config.num_kv_shared_layers", 3),
        ("text_config.vocab_size", -1),
        ("text_config.layer_types", [[SLIDING]] * 4),
        ("use_ordered_embeddings", "true"),
        ("tie_word_embeddings", False),
    ],
)
def test_a_drafter_out_of_range_is_an_error_that_names_it(key, value):
    with pytest.raises(CheckpointError) as caught:
        drafter_of("e2b", having(key, value))
    assert str(caught.value).startswith(f"{DRAFTER}: {key} must be ")


@pytest.mark.parametrize("key", ["hidden_size_per_layer_input", "enable_moe_block"])
def test_a_drafter_with_parts_that_no_drafter_has_is_unsupported(key):
    value = True if key == "enable_moe_block" else 256
    with pytest.raises(UnsupportedModel, match="per-layer inputs or experts"):
        drafter_of("31b", having(f"text_config.{key}", value))


def test_a_shared_layer_without_an_owner_of_its_kind_is_refused():
    def change(top: Json) -> None:
        top["text_config"]["layer_types"] = [SLIDING] * 15 + [FULL] * 20

    with pytest.raises(CheckpointError, match="a full layer among the first 15"):
        target_of("e2b", change)


def test_the_largest_widths_that_pass_fit_the_tensors_of_mlx():
    """MLX holds a dimension in 32 bits; heads · head size must not pass it."""
    with pytest.raises(CheckpointError, match="must be an integer"):
        target_of("31b", lambda top: top["text_config"].update(num_attention_heads=1 << 17,
                                                               head_dim=1 << 17))  # fmt: skip


# What kind of model it is.


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("llama", "'llama' is not supported; supported: gemma4, gemma4_unified, gemma4_text"),
        ("gemma3", "'gemma3' is not supported"),
        ("", "'' is not supported"),
        ("gemma4_assistant", "is a drafter; give it as --draft-model"),
        ("gemma4_unified_assistant", "is a drafter; give it as --draft-model"),
    ],
)
def test_a_target_of_another_kind_is_unsupported(kind, said):
    with pytest.raises(UnsupportedModel) as caught:
        target_of("31b", having("model_type", kind))
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("llama", "'llama' is not supported; supported: gemma4_assistant, gemma4_unified_assis"),
        ("gemma4", "is a target; give it as --model"),
        ("gemma4_text", "is a target; give it as --model"),
    ],
)
def test_a_drafter_of_another_kind_is_unsupported(kind, said):
    with pytest.raises(UnsupportedModel) as caught:
        drafter_of("31b", having("model_type", kind))
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", [None, 4, ["gemma4"], {}])
def test_a_model_type_that_is_no_string_is_an_error(kind):
    with pytest.raises(CheckpointError, match="model_type must be a string"):
        target_of("31b", having("model_type", kind))


def test_a_model_type_of_any_length_makes_a_short_line():
    with pytest.raises(UnsupportedModel) as caught:
        target_of("31b", having("model_type", "x\n" * 100_000))
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


# Whether drafter and target belong together.

MISMATCHES = [
    ("backbone_hidden_size", 2560, "backbone_hidden_size 2560", "5376"),
    ("text_config.vocab_size", 262208, "vocab_size 262208", "262144"),
    ("text_config.head_dim", 128, "layer 0 (sliding) head_dim 128", "256"),
    ("text_config.global_head_dim", 256, "layer 3 (full) head_dim 256", "512"),
    ("text_config.num_key_value_heads", 8, "layer 0 (sliding) K/V heads 8", "16"),
    ("text_config.num_global_key_value_heads", 2, "layer 3 (full) K/V heads 2", "4"),
    ("text_config.sliding_window", 512, "layer 0 (sliding) sliding_window 512", "1024"),
    ("text_config.rope_parameters.full_attention.rope_theta", 1e5, "100000.0", "1000000.0"),
    ("text_config.rope_parameters.full_attention.partial_rotary_factor", 0.5, "128", "64"),
    ("text_config.rope_parameters.full_attention.factor", 8.0, "8.0", "1.0"),
    ("text_config.rope_parameters.sliding_attention.rope_theta", 1e6, "1000000.0", "10000.0"),
]


@every_dialect
@pytest.mark.parametrize(("key", "value", "ours", "theirs"), MISMATCHES)
def test_a_drafter_of_another_target_is_refused_with_both_values(key, value, ours, theirs, dialect):
    drafter = drafter_of("31b", having(key, value), dialect)
    with pytest.raises(DrafterMismatch) as caught:
        drafter.paired_with(target_of("31b"))
    message = str(caught.value)
    assert message.startswith(f"{DRAFTER}: the drafter was made for ")
    assert ours in message
    assert theirs in message.split("the target has")[1]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("other", NAMES)
@every_model
def test_a_published_drafter_fits_its_own_target_only(name, other):
    drafter, target = drafter_of(name), target_of(other)
    if name == other:
        drafter.paired_with(target)
        return
    with pytest.raises(
        DrafterMismatch, match=f"{drafter.backbone_hidden_size}.*{target.hidden_size}"
    ):
        drafter.paired_with(target)


def test_a_drafter_that_reads_a_kind_which_the_target_lacks_is_refused():
    def change(top: Json) -> None:
        top["text_config"]["layer_types"] = [SLIDING] * 60

    target: TargetConfig = target_of("31b", change)
    with pytest.raises(DrafterMismatch, match=r"layer 3 \(full\) reads full attention K/V"):
        drafter_of("31b").paired_with(target)
