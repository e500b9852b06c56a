"""Packing documents into rows of a fixed number of tokens. Pure: it knows lengths, never text or
tensors.

Words used here: a *document* is a token sequence that starts with <|bos|>; a *piece* is the part of
a document that has not been placed yet; a *segment* is what one row takes of a document; the
*capacity* is the number of tokens of a row.

A row is filled in three moves. (1) It begins with the oldest piece of the buffer, so nothing waits
for ever and a long document runs through consecutive rows. (2) The rest is filled best-fit (arXiv
2404.10830): again and again the largest piece that fits whole. (3) When nothing fits, the longest
piece is cut so that the row is exactly full; what is left of it goes back as a piece with a <|bos|>
of its own. No text is thrown away, no row has padding, and every row starts with <|bos|>.
Conversations are not cut: one longer than a row is truncated, and the end of a row where nothing
fits is padding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """Tokens [start, stop) of a document. With start > 0 the row gets one <|bos|> more, in
    front."""

    document: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Tokens it takes in a row."""
        return self.stop - self.start + (self.start > 0)


class Packer:
    """One lane's buffer of pieces, oldest first. `add` documents, then `next_row`.

    capacity: tokens of a row (sequence length + 1: inputs and the last target). splittable: may
    documents be cut? buffer_documents: how many pieces `wants_more` asks for; more pieces give
    fewer cuts (text) or less padding (chat).
    """

    def __init__(self, capacity: int, splittable: bool = True, buffer_documents: int = 16):
        assert capacity >= 2 and buffer_documents >= 1
        self.capacity = capacity
        self.splittable = splittable
        self.buffer_documents = buffer_documents
        self.pieces: list[Segment] = []
        self._tokens = 0

    def add(self, document: int, length: int, start: int = 0) -> None:
        """Buffer what a document of `length` tokens (its <|bos|> included) has from `start` on."""
        assert 0 <= start < length, (document, start, length)
        if not self.splittable:
            length = min(length, self.capacity)
        piece = Segment(document, start, length)
        self.pieces.append(piece)
        self._tokens += piece.length

    def wants_more(self) -> bool:
        """True while another document should be added before the next row: a full row must always
        be possible.
        """
        return len(self.pieces) < self.buffer_documents or self._tokens < self.capacity

    def next_row(self) -> list[Segment]:
        """Segments of one row, in order. Empty when the buffer is empty; short only where the
        module text says so.
        """
        row: list[Segment] = []
        room = self.capacity
        while room > 0 and self.pieces:
            choice = self._best_fit(room) if row else 0
            if choice is not None and self.pieces[choice].length <= room:
                segment = self.pieces.pop(choice)
            elif self.splittable:
                segment = self._cut(self._longest() if row else 0, room)
            else:
                break
            row.append(segment)
            room -= segment.length
        self._tokens = sum(piece.length for piece in self.pieces)
        return row

    def _best_fit(self, room: int) -> int | None:
        best, best_length = None, 0
        for i, piece in enumerate(self.pieces):
            if best_length < piece.length <= room:
                best, best_length = i, piece.length
        return best

    def _longest(self) -> int:
        # Documents longer than a row are cut anyway, so the longest is the one that loses least by
        # being cut here.
        return max(range(len(self.pieces)), key=lambda i: self.pieces[i].length)

    def _cut(self, choice: int, room: int) -> Segment:
        """Take exactly `room` tokens of a piece; the rest keeps its age. With room 1 that is a lone
        <|bos|>.
        """
        piece = self.pieces[choice]
        stop = piece.start + room - (piece.start > 0)
        self.pieces[choice] = Segment(piece.document, stop, piece.stop)
        return Segment(piece.document, piece.start, stop)


def count_rows(
    lengths: Iterable[int], capacity: int, splittable: bool = True, buffer_documents: int = 16
) -> int:
    """Rows that documents of these lengths (tokens) fill when packed in this order in one lane."""
    packer = Packer(capacity, splittable, buffer_documents)
    rows = 0
    for document, length in enumerate(lengths):
        packer.add(document, length)
        while not packer.wants_more():
            packer.next_row()
            rows += 1
    while packer.next_row():
        rows += 1
    return rows


def split_evenly(count: int, parts: int, index: int) -> range:
    """Part `index` of range(count) cut into `parts` contiguous ranges whose sizes differ by at most
    one.
    """
    assert 0 <= index < parts
    size, extra = divmod(count, parts)
    start = index * size + min(index, extra)
    return range(start, start + size + (index < extra))
