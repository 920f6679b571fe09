"""Faults to plant: one row's K/V spoiled where drafts were accepted, as a wrong commit would; and a
drafter that says nothing usable."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
from pytest import MonkeyPatch

from mtp_mlx.engine import engine as engine_module
from mtp_mlx.engine import round as round_module
from mtp_mlx.model.batch import Row
from mtp_mlx.model.cache import Cache
from mtp_mlx.model.drafter import Drafter


def damage_drafted_rounds(monkeypatch: MonkeyPatch, slot: int) -> None:
    """From now on every round with drafts zeroes the newest K/V of the row in `slot`."""

    def commit(cache, sequence, kept, hidden):
        round_module.commit(cache, sequence, kept, hidden)
        if sequence.slot == slot and hidden.shape[0] > 1:
            zero_newest(cache, slot)

    monkeypatch.setattr(engine_module, "commit", commit)


def zero_newest(cache: Cache, slot: int) -> None:
    """Zero keys and values of a row's last committed token."""
    row = Row(slot, cache.lengths[slot] - 1, 1)
    for full in cache.full.values():
        zeros = mx.zeros((full.kv_heads, 1, full.head_dim), full.dtype)
        full.write(row, zeros, zeros)
    for ring in cache.window.values():
        places = mx.array(ring.places(slot, np.array([row.start])).astype(np.int32))
        zeros = mx.zeros((1, ring.kv_heads, ring.head_dim), ring.dtype)
        ring.write(places, zeros, zeros)


def silence_drafters(monkeypatch: MonkeyPatch) -> None:
    """From now on all that drafters score is NaN."""
    original = Drafter.step

    def step(self, embedded, hidden, view):
        logits, state = original(self, embedded, hidden, view)
        return replace(logits, scores=logits.scores * mx.nan), state

    monkeypatch.setattr(Drafter, "step", step)
