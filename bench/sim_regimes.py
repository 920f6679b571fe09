"""The regimes, profiles and mixes of `verification.md` §4 as data.

Costs are relative to a forward of one token (N = 1). Sources of the figures: the tables there.
"""

from bench.sim_machine import Case, Machine, Moe, Phases, Row

POINTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 13, 16, 32, 64)
DENSE = {
    "m5max_12b_q4": (1, 1.045, 1.09, 1.13, 1.22, 1.39, 1.73, 2.2, 3.0, 3.4, 3.5, 3.9, 6.0),
    "m5max_70b_q4": (1, 1.06, 1.11, 1.26, 1.42, 1.68, 2.2, 2.7, 3.2, 3.4, 3.9, 4.3, 6.5),
    "m3ultra_31b_q4": (1, 1.13, 1.26, 1.39, 1.52, 1.65, 1.91, 2.4, 3.0, 3.3, 3.4, 3.9, 6.0),
    "m4pro_op_q4": (1, 1.03, 1.22, 1.47, 1.77, 2.07, 2.69, 3.3, 3.9, 4.0, 4.0, 4.4, 7.0),
    "m2pro_q4": (1, 1.74, 2.43, 3.12, 3.82, 4.4, 5.55, 6.4, 7.0, 7.29, 7.5, 8.5, 12),
    "m1m2_plateau_q4": (1, 1.55, 2.1, 2.7, 3.3, 3.6, 3.8, 3.9, 4.0, 4.0, 4.1, 4.2, 6.0),
    "flat_gpu": (1, 1.01, 1.01, 1.02, 1.03, 1.04, 1.05, 1.07, 1.08, 1.09, 1.12, 1.3, 2.0),
    "cuda_pad8": (1, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.3, 1.6, 2.4),
    "cpu_f32_blas": (1, 1.21, 1.43, 1.64, 1.64, 1.64, 1.64, 1.83, 2.0, 2.1, 2.4, 4.0, 8.0),
    "linear": POINTS,
    "cliff_then_flat": (1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3.2, 3.5),
}
MOE = {
    "moe26_stock": ("m5max_12b_q4", Moe(0.35, 0.35, 0.456)),
    "moe26_stock_indep": ("m5max_12b_q4", Moe(0.35, 0.35, 0.0)),
    "moe26_identical": ("m5max_12b_q4", Moe(0.35, 0.35, 0.456, identical=True)),
    "moe26_grouped": ("flat_gpu", Moe(0.35, 0.0, 0.456)),
}
# One draft step of one row in plain steps, 70 % of it whatever the rows.
DRAFT_STEP = {"m2pro_q4": 0.06} | dict.fromkeys([*MOE, "moe26_line"], 0.10)
DRAFT_STEP_ELSE = 0.04
DEPTH_SHARE = 0.7
HOST = 0.05
# moe26_line: a whole round is 1 + 0.43 (N - 1) at one row, of which 0.09 is the drafter.
LINE_SLOPE = 0.43 - 0.09

CODE = (0.92, 0.90, 0.88, 0.87, 0.86, 0.85, 0.84)
LOW = (0.42, 0.30, 0.25, 0.20)
STATIONARY = {
    "enum": (0.99,),
    "code": CODE,
    "served31": (0.92, 0.86, 0.86, 0.87),
    "served26": (0.84, 0.71, 0.65, 0.69),
    "prose": (0.75, 0.68, 0.64, 0.60, 0.57, 0.55),
    "low": LOW,
    "adverse": (0.08,),
}
MIXES = {
    "code+low": ("code", "low"),
    "2code+2low": ("code", "code", "low", "low"),
    "enum+3adverse": ("enum", "adverse", "adverse", "adverse"),
    "eight": ("enum", "code", "code", "served26", "prose", "prose", "low", "adverse"),
}
SWITCH_TOKENS = 200
# `decay`: acceptance falls by .10 until 16k tokens of context and by .20 until 64k. A run makes a
# few thousand tokens, so one simulated token stands for this many of context.
DECAY_PACE = 16
DECAY_STEP = 50
BATCHES = (1, 2, 4, 8)
# A run lasts as long as so many plain steps.
STEPS = 1500
DRIFT = 0.2
FOREVER = 10**9


def machine(regime: str, drift: float = 0.0) -> Machine:
    """The synthetic machine of a named regime."""
    step = DRAFT_STEP.get(regime, DRAFT_STEP_ELSE)
    moe = None
    if regime == "moe26_line":
        verify = tuple((n, 1 + LINE_SLOPE * (n - 1)) for n in (1, 64))
    else:
        dense = regime
        if regime in MOE:
            dense, moe = MOE[regime]
        verify = tuple(zip(POINTS, DENSE[dense], strict=True))
    d0, d1 = DEPTH_SHARE * step, (1 - DEPTH_SHARE) * step
    return Machine(verify, d0, d1, HOST, drift=drift, moe=moe)


REGIMES = (*DENSE, *MOE, "moe26_line")


def decay() -> Phases:
    """`code`, its acceptance falling with the context; after 64k it stays."""
    phases = []
    for start in range(0, 64_000 // DECAY_PACE, DECAY_STEP):
        context = start * DECAY_PACE
        loss = 0.1 * min(context / 16_000, 1) + 0.1 * max(context - 16_000, 0) / 48_000
        phases.append((DECAY_STEP, tuple(a - loss for a in CODE)))
    phases.append((FOREVER, tuple(a - 0.2 for a in CODE)))
    return tuple(phases)


def profile(name: str) -> Phases:
    """The phases of a named profile of one row."""
    if name == "switch":
        return ((SWITCH_TOKENS, CODE), (SWITCH_TOKENS, LOW))
    if name == "decay":
        return decay()
    return ((FOREVER, STATIONARY[name]),)


def endless(regime: str, title: str, names: tuple[str, ...], kind: str, drift: float = 0.0) -> Case:
    """Rows that all start at once and outlast the horizon: a constant batch."""
    made = machine(regime, drift)
    name = f"{regime}/{title}/{len(names)}"
    rows = tuple(Row(f"{name}/{i}", 0.0, FOREVER, profile(each)) for i, each in enumerate(names))
    batch = len(names)
    return Case(name, made, rows, horizon=STEPS * made.forward(batch, batch), kind=kind)


def staggered(regime: str) -> Case:
    """Sixteen rows of every profile that come and go, about five at a time."""
    name = f"{regime}/staggered/16"
    kinds = [*STATIONARY, "switch", "code"] * 2
    made = machine(regime)
    step = made.forward(5, 5)
    rows = tuple(
        Row(f"{name}/{i}", 40 * i * step, 120 + 40 * (i % 5), profile(kinds[i])) for i in range(16)
    )
    return Case(name, made, rows, kind="arrivals")


def short(regime: str, batch: int, kind: str) -> Case:
    """Requests of 20 tokens, `batch` at a time, one wave after another."""
    name = f"{regime}/short {kind}/{batch}"
    made = machine(regime)
    wave = 20 * made.forward(batch, batch)
    rows = tuple(
        Row(f"{name}/{i}", wave * (i // batch), 20, profile(kind)) for i in range(12 * batch)
    )
    return Case(name, made, rows, kind="short")


def builtin(batches: tuple[int, ...] = BATCHES) -> list[Case]:
    """Every regime × profile × batch of §4."""
    cases = []
    for regime in REGIMES:
        for batch in batches:
            for name in STATIONARY:
                cases.append(endless(regime, name, (name,) * batch, "stationary"))
            for name in ("switch", "decay"):
                cases.append(endless(regime, name, (name,) * batch, name))
            cases.append(endless(regime, "drift code", ("code",) * batch, "drift", DRIFT))
            cases.append(endless(regime, "drift prose", ("prose",) * batch, "drift", DRIFT))
            for name in ("code", "adverse"):
                cases.append(short(regime, batch, name))
        for title, names in MIXES.items():
            if len(names) in batches:
                cases.append(endless(regime, title, names, "mixed"))
        cases.append(staggered(regime))
    return cases
