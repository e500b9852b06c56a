"""The scheduler alone: whatever arrives, is cancelled or does not fit, every invariant of its pages
and rows holds.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine.pages import PagePool
from nanochat.engine.scheduler import ScheduledRow, Scheduler
from nanochat.engine.sequence import SamplingParams, Sequence

PAGE = 4
CONTEXT = 40
PARAMS = SamplingParams(seed=0)


def scheduler(
    max_pages: int = 10, max_running: int = 4, budget: int = 8, reuse: bool = True
) -> Scheduler:
    pool = PagePool(max_pages, PAGE, max_pages // 2 if reuse else 0)
    return Scheduler(pool, max_running, budget, CONTEXT, reuse)


class World:
    """Runs a scheduler without a model: remembers what each page would hold and answers with
    predictable tokens.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.slots: dict[
            tuple[int, int], tuple[int, ...]
        ] = {}  # (page, offset) -> all tokens up to there
        self.todo: dict[Sequence, int] = {}
        self.n_computed = 0

    def add(self, tokens: list[int], n_new: int) -> Sequence:
        sequence = Sequence(len(self.todo), list(tokens), PARAMS)
        self.todo[sequence] = n_new
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> list[ScheduledRow]:
        rows = self.scheduler.plan()
        self.check(rows)
        for row in rows:
            self.n_computed += row.n_tokens
            tokens = row.sequence.tokens
            for position in range(row.start, row.stop):
                if position >= row.store_from:
                    self.slots[row.sequence.pages[position // PAGE], position % PAGE] = tuple(
                        tokens[: position + 1]
                    )
        for row in (
            rows
        ):  # attention reads every position up to the last one: it must hold exactly this prefix
            for position in range(row.stop):
                held = self.slots[row.sequence.pages[position // PAGE], position % PAGE]
                assert held == tuple(row.sequence.tokens[: position + 1])
        self.scheduler.computed(rows)
        for row in rows:
            if row.stop == len(row.sequence.tokens):
                row.sequence.tokens.append(sum(row.sequence.tokens) % 3)
                if row.sequence.n_generated >= self.todo[row.sequence]:
                    row.sequence.finish("length")
                    self.scheduler.remove(row.sequence)
        self.scheduler.pool.check()
        return rows

    def check(self, rows: list[ScheduledRow]) -> None:
        s = self.scheduler
        s.pool.check()
        assert sum(row.n_tokens for row in rows) <= s.max_step_tokens
        assert len(s.running) <= s.max_running
        assert len({id(row.sequence) for row in rows}) == len(rows)
        assert all(
            row.sequence in s.running and row.start < row.stop <= len(row.sequence.tokens)
            for row in rows
        )
        assert not set(map(id, s.running)) & set(map(id, s.waiting))

    def drain(self, limit: int = 4000) -> None:
        steps = 0
        while self.scheduler.running or self.scheduler.waiting:
            assert self.step(), "a step without rows makes no progress"
            steps += 1
            assert steps < limit, "does not come to an end"


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=30)
kinds = st.sampled_from(["add", "step", "step", "cancel"])
actions = st.lists(st.tuples(kinds, prompts, st.integers(1, 10)), max_size=40)


@settings(max_examples=150, deadline=None)
@given(actions, st.integers(10, 16), st.integers(1, 5), st.integers(5, 30), st.booleans())
def test_everything_finishes_and_no_page_leaks(script, max_pages, max_running, budget, reuse):
    world = World(scheduler(max_pages, max_running, budget, reuse))
    for action, tokens, number in script:
        if action == "add":
            world.add(tokens, number)
        elif action == "step":
            world.step()
        else:
            alive = [s for s in world.todo if not s.finished]
            if alive:
                victim = alive[number % len(alive)]
                victim.finish("cancelled")
                world.scheduler.remove(victim)
                world.scheduler.pool.check()
    world.drain()
    assert all(sequence.finished for sequence in world.todo)
    assert world.scheduler.pool.n_used == 0
    assert not world.scheduler._expected
    if not reuse:
        assert world.scheduler.pool.n_retained == 0


def test_long_prompt_is_read_in_chunks_while_others_decode():
    world = World(scheduler(max_pages=20, budget=6))
    short = world.add([1, 2], 20)
    world.step()
    long = world.add(list(range(30)), 3)
    for _ in range(5):
        rows = world.step()
        assert [row.n_tokens for row in rows] == [1, 5]
        assert rows[0].sequence is short and rows[1].sequence is long
    world.step()
    assert long.n_generated == 1


def test_preemption_takes_the_youngest_and_recomputes_it():
    world = World(scheduler(max_pages=10, budget=40, reuse=False))
    old, young = world.add([1] * 15, 20), world.add([2] * 15, 20)
    while not world.scheduler.n_preempted:
        world.step()
    assert young.n_preempted == 1 and old.n_preempted == 0
    assert world.scheduler.waiting[0] is young and young.pages == [] and young.n_generated > 0
    world.drain()
    assert len(young.tokens) == len(old.tokens) == 35


def test_arrival_order_is_kept_when_memory_is_short():
    world = World(scheduler(max_pages=10, budget=40, reuse=False))
    world.add([1] * 20, 10)
    big, small = world.add([2] * 30, 2), world.add([0], 2)
    world.step()
    assert list(world.scheduler.waiting) == [big, small], (
        "a small prompt must not overtake a big one for ever"
    )


def test_second_turn_computes_only_what_is_new():
    world = World(scheduler(max_pages=20, budget=64))
    first = world.add(list(range(13)), 8)
    world.drain()
    before = world.n_computed
    world.add([*first.tokens, 7, 7], 1)
    world.drain()
    assert (
        world.n_computed - before == 23 % PAGE
    )  # 21 tokens, the last never run, so five full pages of 4 are found


def test_samples_of_one_prompt_compute_it_once():
    world = World(scheduler(max_pages=40, max_running=8, budget=64))
    prompt = list(range(16))
    for _ in range(8):
        world.add(prompt, 1)
    rows = world.step()
    assert len(rows) == 1 and rows[0].n_tokens == 16, (
        "the others wait for the one that reads the prompt"
    )
    rows = world.step()
    assert [row.n_tokens for row in rows] == [1] * 7, "only the last token again, for its logits"
    assert all(row.store_from == 16 for row in rows), "shared pages are not written again"


def test_cancelling_the_reader_lets_the_waiting_ones_read():
    world = World(scheduler(max_pages=20, budget=4))
    first, second = world.add(list(range(20)), 1), world.add(list(range(20)), 1)
    world.step()
    first.finish("cancelled")
    world.scheduler.remove(first)
    rows = world.step()
    assert rows[0].sequence is second and rows[0].start == 4, "what the first one read is reused"
    world.drain()


def test_retained_pages_are_taken_back_oldest_first():
    pool = PagePool(4, PAGE, max_retained=4)
    pages = [pool.allocate() for _ in range(4)]
    for number, page in enumerate(pages):
        pool.register(page, bytes([number]))
    pool.release(pages[2:])
    pool.release(pages[:2])
    assert pool.n_retained == 4 and pool.n_available == 4
    assert pool.allocate() == pages[3], "the end of what was released first"
    assert pool.find(bytes([3])) is None and pool.find(bytes([2])) == pages[2]
    pool.check()


def test_retention_is_bounded_and_dropped():
    pool = PagePool(8, PAGE, max_retained=2)
    pages = [pool.allocate() for _ in range(6)]
    for number, page in enumerate(pages):
        pool.register(page, bytes([number]))
    pool.release(pages)
    assert (
        pool.n_retained == 2 and pool.find(bytes([0])) == pages[0] and pool.find(bytes([5])) is None
    )
    pool.drop_retained()
    pool.check()
    assert pool.n_reached == 1 and pool.find(bytes([0])) is None


def test_a_cache_too_small_for_one_sequence_is_refused():
    with pytest.raises(AssertionError, match="full length"):
        scheduler(max_pages=CONTEXT // PAGE - 1)
