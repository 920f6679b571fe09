"""Growth with the context: exponents, memory that is exact, and what is called a fault."""

import pytest

from bench import growth

CONTEXTS = (128, 512, 2048)


def test_exponents_of_powers():
    lines = [{"context": n, "ms": 5.0 + 0.01 * n**2} for n in CONTEXTS]
    assert growth.exponent_of_steps(lines, "ms") == pytest.approx(2.0)
    assert growth.exponent(CONTEXTS, [7.0] * 3) == pytest.approx(0.0)


def test_steps_that_noise_hides_do_not_hide_the_last():
    """Behind a large constant a square shows at the longest context alone."""
    contexts = (1 << 10, 1 << 12, 1 << 14, 1 << 16)
    lines = [{"context": n, "ms": 1.0 + 10.0 * (n / contexts[-1]) ** 2} for n in contexts]
    found = growth.exponent_of_steps(lines, "ms")
    assert found > growth.MOST_LINEAR
    lines = [{"context": n, "ms": 1.0 + 10.0 * n / contexts[-1]} for n in contexts]
    assert growth.exponent_of_steps(lines, "ms") <= growth.MOST_LINEAR


def test_what_grows_by_less_than_noise_has_no_exponent():
    lines = [{"context": n, "ms": 5.0 + n / 2048} for n in CONTEXTS]
    assert growth.exponent_of_steps(lines, "ms") is None


def test_memory_of_the_smallest_run():
    rounds = growth.round_lines(CONTEXTS, 1)
    chunks = growth.chunk_lines(CONTEXTS[-1:], (64,))
    assert [line["model"] for line in rounds] == ["sliding"] * 3 + ["full"] * 3 + ["both"] * 3
    fitted = growth.fits(rounds, chunks)
    assert growth.memory_faults(fitted, chunks) == []
    growth.show(rounds, chunks, fitted)


def test_faults_are_found():
    fitted = {
        "sliding_ring_bytes": 0.5, "full_bytes_steps": 1.5, "sliding_ms": 0.9, "sliding_grown": 1.6,
        "full_ms_steps": 1.9, "both_ms_steps": None,
    }  # fmt: skip
    chunk = {"chunk": 64, "context": 128, "work_bytes": 9 << 20, "planned_bytes": 1 << 20}
    assert len(growth.memory_faults(fitted, [chunk])) == 3
    assert len(growth.time_faults(fitted)) == 3
