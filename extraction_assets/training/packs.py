"""Which examples of a global batch share a forward pass: packs by true token lengths, known before any image is opened.

A pack is one unpadded row of whole pages (model.packing). Who meets whom changes nothing in the result: pages do not see each other,
and the loss is a sum over response tokens divided by their number in the global batch. It only decides what a step costs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack_rows(rows: Sequence[int], lengths: Sequence[int], room: int) -> list[tuple[int, ...]]:
    """Best fit decreasing: the longest example first, each into the fullest pack that still has room for it.

    rows: indices into lengths (tokens); among equal lengths their order decides, so a seeded order gives seeded packs. room: tokens of
    a pack. Nothing is ever cut: an example longer than that is a pack of its own. Uses at most 11/9 of the fewest possible packs, plus 4
    (Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing algorithms").
    """
    packs: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, pack), sorted
    for row in sorted(rows, key=lambda row: -lengths[row]):
        length = lengths[row]
        at = bisect_left(free, (length, 0))
        if at == len(free):
            packs.append([])
            left, number = room, len(packs) - 1
        else:
            left, number = free.pop(at)
        packs[number].append(row)
        if left > length:
            insort(free, (left - length, number))
    return [tuple(pack) for pack in packs]


def shares(rows: Sequence[int], lengths: Sequence[int], room: int, ranks: int = 1) -> list[list[tuple[int, ...]]]:
    """The packs of each rank. Ranks get equally many (as far as the examples go), and tokens as even as whole packs allow.

    A rank has no pack only if there are fewer examples than ranks; it must still join the collective operations (fillers).
    """
    packs = pack_rows(rows, lengths, room)

    def tokens(pack: tuple[int, ...]) -> int:
        return sum(lengths[row] for row in pack)

    while len(packs) % ranks and any(len(pack) > 1 for pack in packs):
        largest = max((pack for pack in packs if len(pack) > 1), key=tokens)
        packs.remove(largest)
        packs += _halves(largest, lengths)
    quota = -(-len(packs) // ranks)
    dealt: list[list[tuple[int, ...]]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for pack in sorted(packs, key=lambda pack: -tokens(pack)):
        rank = min((rank for rank in range(ranks) if len(dealt[rank]) < quota), key=lambda rank: (load[rank], rank))
        dealt[rank].append(pack)
        load[rank] += tokens(pack)
    return dealt


def fillers(dealt: Sequence[Sequence[tuple[int, ...]]], rank: int, rows: Sequence[int]) -> list[tuple[int, ...]]:
    """Packs that a rank sends through besides its own, to no effect, where all ranks have to do equally many forward passes.

    rows: of the global batch; a rank that has no pack of its own takes the first.
    """
    missing = max(len(packs) for packs in dealt) - len(dealt[rank])
    return [(dealt[rank][-1] if dealt[rank] else (rows[0],))] * missing


def _halves(pack: tuple[int, ...], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Two packs of about as many tokens each, none empty. pack: longest first, two examples or more."""
    halves: list[list[int]] = [[], []]
    for row in pack:
        min(halves, key=lambda half: sum(lengths[each] for each in half)).append(row)
    return [tuple(half) for half in halves]
