"""The queue: bounded, first come first served for each client, clients in turn."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.serve.work.fair_queue import FairQueue, Full


def test_clients_take_turns():
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3", "b1", "b2", "c1"):
        assert queue.put(item[0], item) is None
    assert [queue.pop() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_fills_the_queue_gives_way():
    queue: FairQueue[str] = FairQueue(3)
    for item in ("a1", "a2", "a3"):
        queue.put("a", item)
    with pytest.raises(Full):
        queue.put("a", "a4")
    assert queue.put("b", "b1") == "a3"
    with pytest.raises(Full):
        queue.put("b", "b2")  # would only swap the roles
    assert [queue.pop() for _ in range(3)] == ["a1", "b1", "a2"]


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "pop", "remove"]), st.sampled_from("abc"), st.integers(0, 20)
    ),
    max_size=60,
)


@given(limit=st.integers(1, 6), operations=operations)
def test_against_a_list_of_lines(limit, operations):
    queue: FairQueue[int] = FairQueue(limit)
    lines: dict[str, list[int]] = {}
    for number, (what, client, pick) in enumerate(operations):
        waiting = [item for line in lines.values() for item in line]
        if what == "put":
            try:
                displaced = queue.put(client, number)
            except Full:
                assert len(waiting) == limit
                assert max(map(len, lines.values())) <= len(lines.get(client, [])) + 1
                continue
            if displaced is not None:
                longest = max(map(len, lines.values()))
                owner = next(name for name, line in lines.items() if displaced in line)
                assert (
                    len(waiting) == limit
                    and lines[owner][-1] == displaced
                    and len(lines[owner]) == longest
                )
                lines[owner].remove(displaced)
            lines.setdefault(client, []).append(number)
        elif what == "pop" and waiting:
            item = queue.pop()
            owner = next(name for name, line in lines.items() if item in line)
            assert lines[owner].pop(0) == item
        elif what == "remove":
            item = waiting[pick % len(waiting)] if waiting else -1
            owner = next((name for name, line in lines.items() if item in line), client)
            assert queue.remove(owner, item) == (item in waiting)
            if item in waiting:
                lines[owner].remove(item)
        assert len(queue) == sum(map(len, lines.values())) <= limit
        assert (queue.peek() is None) == (len(queue) == 0)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
def test_nobody_waits_for_more_than_a_round(clients):
    queue: FairQueue[tuple[str, int]] = FairQueue(100)
    for number, client in enumerate(clients):
        queue.put(client, (client, number))
    served = [queue.pop()[0] for _ in clients]
    for client in set(clients):
        turns = [number for number, name in enumerate(served) if name == client]
        others = len(set(clients))
        assert turns[0] < others
        assert all(later - earlier <= others for earlier, later in itertools.pairwise(turns))
