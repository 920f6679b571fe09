"""What must hold of an engine between any two steps; tests check it after every one."""

from mtp_mlx.engine.engine import Engine


def check_invariants(engine: Engine) -> None:
    """Raises AssertionError naming the first rule that is broken."""
    lengths = engine.cache.lengths
    for slot, sequence in enumerate(engine.slots):
        if sequence is None:
            assert lengths[slot] == 0, f"free slot {slot} holds {lengths[slot]} tokens"
            assert slot not in engine.memory.rows, f"free slot {slot} has memory reserved"
            assert engine.cache.full_bytes(slot) == 0, f"free slot {slot} holds K/V"
            continue
        assert sequence.slot == slot, f"request {sequence.id} is in slot {slot}"
        if sequence.is_running:
            expected = len(sequence.tokens) - 1  # the last one is pending
            assert sequence.hidden is not None, f"request {sequence.id} runs without a state"
        else:
            expected = sequence.num_prefilled
            assert sequence.num_emitted == 0, f"request {sequence.id} has written too early"
        assert lengths[slot] == expected, (
            f"request {sequence.id}: {lengths[slot]} tokens cached, {expected} expected"
        )
        assert sequence.remaining > 0, f"request {sequence.id} is over and still there"
        held, allowed = engine.cache.full_bytes(slot), engine.memory.rows[slot]
        assert held <= allowed, f"request {sequence.id} holds {held} bytes of {allowed}"
    budget = engine.memory.budget
    assert budget is None or engine.memory.reserved <= budget, "more is reserved than allowed"
    ids = [s.id for s in engine.sequences] + [request_id for request_id, _ in engine.waiting]
    assert len(set(ids)) == len(ids), f"a request is there twice: {ids}"
    queue = [request_id for request_id, _ in engine.waiting]
    assert queue == sorted(queue), f"the queue is out of order: {queue}"
    _check_kept(engine)


def _check_kept(engine: Engine) -> None:
    """What is kept of texts: counted to the byte, within its budget and that of the K/V."""
    borders, memory = engine.prefixes.borders, engine.memory
    held = 0
    for ids, span, window in borders.texts():
        assert span is not None and len(ids) % borders.chunk == 0, "a kept text has no last chunk"
        held += sum(array.nbytes for array in (*span, *(window or ())))
    assert borders.bytes == held, f"{held} bytes of texts are held, {borders.bytes} counted"
    assert memory.kept == held, f"{held} bytes of texts are held, the ledger has {memory.kept}"
    assert held <= borders.budget, f"{held} bytes of texts are held, {borders.budget} allowed"
    assert memory.budget is None or memory.free >= 0, "rows and texts hold more than there is"
