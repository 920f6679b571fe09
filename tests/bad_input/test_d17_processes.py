"""D17: several models in a process, in any order of imports, on any thread; and none of MLX."""

import subprocess
import sys
import threading

import pytest

import mtp_mlx
from tests.api_pairs import folders, loaded
from tests.bad_input.engines import PROMPTS, SAMPLED, SOON_S, Calls, own

QUICK = ("mlx first", "mlx while it runs", "the reference beside it", "one after the other")
EXPECTED = "llm.generate([2, 9, 7], temperature=0, max_tokens=6, num_draft_tokens=3).token_ids"
LOAD = "mtp_mlx.load(sys.argv[1], draft_model=sys.argv[2])"
ORDERS = {
    "mlx first": f"""
import mlx.core as mx
x = mx.arange(6) * 2
import mtp_mlx
with {LOAD} as llm: print(*{EXPECTED}, sum(x.tolist()))
print((x + 1).tolist()[0])
""",
    "mlx computed first": f"""
import mlx.core as mx
x = mx.random.normal((64, 64)) @ mx.random.normal((64, 64)); mx.eval(x)
import mtp_mlx
with {LOAD} as llm: print(*{EXPECTED}, mx.isfinite(x).all().item() and 30)
print(int((x - x).sum()) + 1)
""",
    "mlx while it runs": f"""
import mtp_mlx
with {LOAD} as llm:
    with llm.stream([2, 44], max_tokens=2000) as stream:
        next(stream)
        import mlx.core as mx
        x = mx.arange(6) * 2
        print(*{EXPECTED}, sum(x.tolist()))
print((x + 1).tolist()[0])
""",
    "modules of the package in another order": f"""
import mtp_mlx.engine.engine, mtp_mlx.model.cache, mtp_mlx.streams, mtp_mlx.job, mtp_mlx
with {LOAD} as llm: print(*{EXPECTED}, 30)
print(1)
""",
    "the reference beside it": f"""
import mtp_mlx
twin = mtp_mlx.load(sys.argv[1], draft_model=sys.argv[2], backend="numpy")
with {LOAD} as llm, twin:
    print(*{EXPECTED}, 30)
    assert {EXPECTED} == {EXPECTED.replace("llm", "twin")}
print(1)
""",
    "loaded on a thread": f"""
import threading, mtp_mlx
made = []
thread = threading.Thread(target=lambda: made.append({LOAD}))
thread.start(); thread.join()
[llm] = made
print(*{EXPECTED}, 30)
print(1)
""",
    "one after the other": f"""
import mtp_mlx
for _ in range(2):
    with {LOAD} as llm: first = {EXPECTED}
with {LOAD} as llm: print(*{EXPECTED}, 30); assert {EXPECTED} == first
print(1)
""",
}


@pytest.mark.parametrize(
    "order",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in ORDERS],
)
def test_any_order_of_imports_gives_the_same_text_and_a_clean_end(order):
    llm = loaded()
    expected = eval(EXPECTED, {"llm": llm})
    arguments = [sys.executable, "-c", "import sys\n" + ORDERS[order], *map(str, folders())]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=SOON_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(map(int, done.stdout.split())) == [*expected, 30, 1]


def test_engines_of_one_process_do_not_disturb_each_other():
    shared = loaded()
    expected = [shared.generate(prompt, **SAMPLED).token_ids for prompt in PROMPTS]
    before = threading.active_count()
    models = [own(), own("numpy"), own(max_num_seqs=2)]
    calls = [
        lambda llm=llm, prompt=prompt: llm.generate(prompt, **SAMPLED).token_ids
        for llm in (shared, *models)
        for prompt in PROMPTS
    ]
    assert [end.result for end in Calls(*calls).ends()] == expected * (1 + len(models))
    models.pop(0).close()
    left = Calls(*calls[:3], *calls[6:]).ends()
    assert [end.result for end in left] == expected * 3
    with pytest.raises(mtp_mlx.EngineStopped):
        calls[3]()
    for llm in models:
        llm.close()
    assert threading.active_count() == before
