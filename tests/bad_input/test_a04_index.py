"""A4: shards and index that do not agree."""

from tests.bad_input.faults import Damage, Fault, check, each, in_target_json
from tests.bad_input.files import INDEX

SHARDS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
NORM = "model.language_model.norm.weight"


def without(*names: str) -> Damage:
    return lambda target, drafter: [(target / name).unlink() for name in names]


def listing(**more: str) -> Damage:
    return in_target_json(INDEX, lambda index: index["weight_map"].update(more))


def forgetting(index):
    for name in sorted(index["weight_map"])[:7]:
        del index["weight_map"][name]


FAULTS = [
    Fault("no_second", without(SHARDS[1]), (SHARDS[1], "missing files")),
    Fault("no_second_no_index", without(SHARDS[1], INDEX), (SHARDS[0], "shards 1 to 3")),
    Fault("no_last_no_index", without(SHARDS[2], INDEX), (SHARDS[0], "shards 1 to 3")),
    Fault(
        "absent_tensors",
        listing(**{f"x{number}": SHARDS[0] for number in range(7)}),
        (INDEX, "no file has: x0, x1, x2, x3, x4 and 2 more"),
    ),
    Fault(
        "unlisted_tensors",
        in_target_json(INDEX, forgetting),
        (INDEX, "does not list these tensors: ", " and 2 more"),
    ),
    Fault("wrong_file", listing(**{NORM: SHARDS[0]}), (INDEX, "wrong file for: " + NORM)),
    Fault("absent_file", listing(x="model-9.safetensors"), ("model-9.safetensors", "missing")),
    Fault("number", listing(x=7), (INDEX, "expected file names")),  # type: ignore[arg-type]
    Fault("empty", in_target_json(INDEX, lambda i: i.update(weight_map={})), (INDEX, "weight_map")),
    Fault("list", in_target_json(INDEX, lambda i: i.update(weight_map=[])), (INDEX, "weight_map")),
    Fault("no_map", in_target_json(INDEX, lambda i: i.pop("weight_map")), (INDEX, "weight_map")),
]


@each(FAULTS)
def test_shards_and_index_that_disagree_are_refused_by_name(fault, tmp_path):
    check(fault, tmp_path, shards=3)
