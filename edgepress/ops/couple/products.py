"""Label rules of MatMul and Einsum: products with constant weights, and of computed tensors (attention).

Both are sums of products over an index space whose axes are letters, as in ``bhtd,bhsd->bhts``.

With a constant, letters that are summed consume the labels of the computed operand (role ``in``), letters that only
the weight has make fresh channels (``out``), and labels along letters that both keep go through (``along``)::

    y[.., n] = sum_k x[.., k] W[k, n]

A product of computed tensors has no weights that could be zeroed, so nothing it sums over can go alone: labels along
a summed letter are tied. What is left are labels along the letters that stay, tied position by position between the
operands: the scores of head h live and die with all of its query, key and value channels::

    s[h, t, s] = sum_d q[h, t, d] k[h, s, d]        one label per h
    o[h, t, e] = sum_s s[h, t, s] v[h, s, e]        the label of h ties all e

An operand whose labels would vary along no letter any more (a single head) is pinned. The values of a single head
meet fixed scores and keep a label per column. Where rows and columns are channels of two kinds, one kind is pinned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import numpy as np

from edgepress.ops.board import Board, NodeLike
from edgepress.ops.couple import ties
from edgepress.ops.couple.rule import Rule
from edgepress.ops.labels import core, fill, varying

Letters = Sequence[str]

SUMMED = "a product of two computed tensors sums over all of its channels, and there are no heads that could go whole"
MET = "a product of two computed tensors spreads it over channels of another kind"


@dataclass(frozen=True, slots=True)
class Term:
    """An operand of a product: its letters and its labels (None for a constant)."""

    slot: int
    letters: Letters
    labels: np.ndarray | None


def matmul(board: Board, node: NodeLike) -> str | None:
    """MatMul, and FusedMatMul of com.microsoft, which may transpose either operand first."""
    if node.attributes.get("transBatchA", 0) or node.attributes.get("transBatchB", 0):
        return "it transposes batches"
    ranks = [len(board.shapes[name]) for name in node.inputs]
    left, right, result = matmul_letters(*ranks)
    if node.attributes.get("transA", 0) and len(left) > 1:
        left = [*left[:-2], left[-1], left[-2]]
    if node.attributes.get("transB", 0) and len(right) > 1:
        right = [*right[:-2], right[-1], right[-2]]
    return contraction(board, node, (left, right), result)


def matmul_letters(left: int, right: int) -> tuple[Letters, Letters, Letters]:
    """Letters of the operands and of the result of MatMul, by the ranks of the operands."""
    batch = [f"b{place}" for place in range(max(left, right) - 2, 0, -1)]
    rows, columns = ["m"] * (left > 1), ["n"] * (right > 1)
    first = [*batch[len(batch) - max(left - 2, 0) :], *rows, "k"]
    second = [*batch[len(batch) - max(right - 2, 0) :], "k", *columns]
    return first, second, [*batch, *rows, *columns]


def einsum(board: Board, node: NodeLike) -> str | None:
    """Einsum."""
    parsed = einsum_letters(str(node.attributes["equation"]), [len(board.shapes[name]) for name in node.inputs])
    return parsed if isinstance(parsed, str) else contraction(board, node, *parsed)


def einsum_letters(equation: str, ranks: Sequence[int]) -> tuple[list[Letters], Letters] | str:
    """Letters of the operands and the result of an Einsum; the reason where it is none of the plain ones.

    An ellipsis stands for the letters ``0``, ``1``, ..., counted from the back.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_with_ellipsis(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    if any(len(set(term)) < len(term) for term in terms):
        return "it takes a diagonal"
    if arrow:
        longest = max((sum(letter.isdigit() for letter in term) for term in terms), default=0)
        return list(terms), _with_ellipsis(right, len(right.replace("...", "")) + longest)
    every = [letter for term in terms for letter in term]
    rest = sorted({letter for letter in every if every.count(letter) == 1 and not letter.isdigit()})
    return list(terms), [*sorted({letter for letter in every if letter.isdigit()}, reverse=True), *rest]


def _with_ellipsis(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *(str(place) for place in reversed(range(hidden))), *after]


def contraction(board: Board, node: NodeLike, letters: Sequence[Letters], result: Letters) -> str | None:
    """The label rule of a sum of products."""
    terms = [
        Term(slot, of, board.labels.get(name)) for slot, (name, of) in enumerate(zip(node.inputs, letters, strict=True))
    ]
    moving = [(term.labels, term.letters) for term in terms if term.labels is not None]
    constant = [term for term in terms if term.labels is None]
    if len(moving) == len(terms):
        board.write(node.outputs[0], _fitted(product(board, node, moving, result), board.shapes[node.outputs[0]]))
        return None
    if len(terms) > 2 or len(moving) != 1:
        return "it multiplies more than two tensors, one of them constant"
    moved = next(term for term in terms if term.labels is not None)
    summed = [axis for axis, letter in enumerate(moved.letters) if letter not in result]
    ties.settle_copies(board, node, node.inputs[moved.slot], summed)
    return _weighted(board, node, (board.labels[node.inputs[moved.slot]], moved.letters), constant[0], result)


def _fitted(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(core(labels), shape)


# --- with a constant ------------------------------------------------------------------------------------


def _weighted(
    board: Board, node: NodeLike, moving: tuple[np.ndarray, Letters], weight: Term, result: Letters
) -> str | None:
    labels, letters = _narrowed(*moving, dict(zip(weight.letters, _shape(board, node, weight), strict=True)))
    summed = {letter for letter in letters if letter not in result}
    alone = ties.together(board, labels, [letters.index(letter) for letter in summed - set(weight.letters)])
    if alone is None:
        return "it sums over channels without weights"
    consumed = summed & set(weight.letters)
    free = {letters[axis] for axis in _apart(board, alone, consumed, letters)}
    shape = board.shapes[node.outputs[0]]
    if free and not free & consumed:  # channels go through: whole heads, each by the same or by its own weights
        board.lay(node, weight.slot, _spaced(alone, letters, weight.letters, _shape(board, node, weight)), "along")
        board.write(node.outputs[0], _spaced(alone, letters, result, shape))
        return None
    _consume(board, node, weight, alone, letters, consumed)
    board.write(node.outputs[0], _produce(board, node, weight, letters, result))
    return None


def _narrowed(labels: np.ndarray, letters: Letters, sizes: Mapping[str, int]) -> tuple[np.ndarray, Letters]:
    """Without the axes of length 1 that are broadcast to the weight's size: only the weight has those."""
    wide = [axis for axis, letter in enumerate(letters) if labels.shape[axis] == 1 and sizes.get(letter, 1) > 1]
    kept = [letter for axis, letter in enumerate(letters) if axis not in wide]
    return labels[tuple(0 if axis in wide else slice(None) for axis in range(labels.ndim))], kept


def _apart(board: Board, labels: np.ndarray, consumed: set[str], letters: Letters) -> set[int]:
    """The axes along which channels are apart; where they vary along summed ones only, that is plain to see."""
    axes = set(varying(labels))
    return axes if {letters[axis] for axis in axes} <= consumed else ties.apart(board, labels)


def _shape(board: Board, node: NodeLike, weight: Term) -> tuple[int, ...]:
    return board.shapes[node.inputs[weight.slot]]


def _spaced(labels: np.ndarray, letters: Letters, wanted: Letters, shape: tuple[int, ...]) -> np.ndarray:
    """Labels over ``letters`` as labels over ``wanted``: letters that are not wanted are dropped at index 0."""
    inner = core(labels)
    inner = inner[tuple(slice(None) if letter in wanted else slice(0, 1) for letter in letters)]
    kept = [letter for letter in letters if letter in wanted]
    inner = inner.reshape([n for n, letter in zip(inner.shape, letters, strict=True) if letter in wanted])
    inner = inner.transpose([kept.index(letter) for letter in wanted if letter in kept])
    places = iter(inner.shape)
    inner = inner.reshape([next(places) if letter in kept else 1 for letter in wanted])
    fits = [n == 1 or n == size for n, size in zip(inner.shape, shape, strict=True)]
    inner = inner[tuple(slice(None) if fit else slice(0, 1) for fit in fits)]  # a weight that is broadcast
    return np.broadcast_to(inner, shape)


def _consume(
    board: Board, node: NodeLike, weight: Term, labels: np.ndarray, letters: Letters, consumed: set[str]
) -> None:
    """Note the axes of the weight that are summed over."""
    others = [axis for axis, letter in enumerate(letters) if letter not in consumed]
    kept = ties.together(board, labels, others)
    now = labels if kept is None else kept
    if set(varying(now)) & set(others):  # pinned: they stay, whatever they are tied to
        now = ties.settled(board, now)
    spaced = _spaced(now, letters, weight.letters, _shape(board, node, weight))
    axes = [axis for axis, letter in enumerate(weight.letters) if letter in consumed]
    if len(axes) == 1:
        line = tuple(slice(None) if axis == axes[0] else 0 for axis in range(spaced.ndim))
        board.use(node, weight.slot, axes[0], spaced[line], "in")
    else:
        board.lay(node, weight.slot, spaced, "in")


def _produce(board: Board, node: NodeLike, weight: Term, letters: Letters, result: Letters) -> np.ndarray:
    """Fresh channels along the letters that only the weight has."""
    made = [letter for letter in weight.letters if letter in result and letter not in letters]
    shape, sizes = board.shapes[node.outputs[0]], _shape(board, node, weight)
    if not made:
        whole = board.atoms.source(node.name, "it sums all channels into one value", wall=True)
        return fill(whole, shape)
    fresh = board.atoms.fresh(int(np.prod([sizes[weight.letters.index(letter)] for letter in made])))
    leaving = fresh.reshape([sizes[weight.letters.index(letter)] for letter in made])
    if len(made) == 1:
        board.use(node, weight.slot, weight.letters.index(made[0]), fresh, "out")
    else:
        board.lay(node, weight.slot, _spaced(leaving, made, weight.letters, sizes), "out")
    return _spaced(leaving, made, result, shape)


# --- of computed tensors --------------------------------------------------------------------------------


def product(
    board: Board, node: NodeLike, operands: Sequence[tuple[np.ndarray, Letters]], result: Letters
) -> np.ndarray:
    """Labels of a sum of products of computed tensors, over the letters of ``result``.

    Args:
        board: the analysis.
        node: the node it is part of.
        operands: labels and letters of each operand; an axis of length 1 is broadcast.
        result: the letters that stay; the others are summed over.
    """
    summed = [letter for letter in dict.fromkeys(x for _, of in operands for x in of) if letter not in result]
    every = [*result, *summed]
    spaced = [_spread_out(labels, letters, every) for labels, letters in operands]
    single = board.atoms.source(node.name, SUMMED, wall=True)
    dependent = [_tie_summed(board, labels, len(summed), single) for labels in spaced]
    stuck = [labels for labels in dependent if ties.fixed(labels)]
    held = [ties.respect(board, labels, stuck) for labels in dependent if not ties.fixed(labels)]
    free = [labels for labels in held if not ties.fixed(labels)]
    shape = np.broadcast_shapes(*(labels.shape for labels in spaced))[: len(result)]
    shared = {place for place, x in enumerate(every) if all(x in of for _, of in operands)}
    met = _meet(board, node, free, shared, single) if free else (stuck or held)[0]
    front: tuple[slice | int, ...] = (*[slice(None)] * len(result), *[0] * len(summed))
    return np.broadcast_to(core(met)[front], shape)


def _spread_out(labels: np.ndarray, letters: Letters, every: Letters) -> np.ndarray:
    order = [letters.index(letter) for letter in every if letter in letters]
    return labels.transpose(order)[tuple(slice(None) if letter in letters else None for letter in every)]


def _tie_summed(board: Board, labels: np.ndarray, summed: int, single: int) -> np.ndarray:
    """Everything summed over is tied; labels that are no channels of their own any more become fixed."""
    now = ties.settled(board, labels)
    if ties.fixed(now):
        return now
    kept = ties.together(board, now, range(now.ndim - summed, now.ndim))
    return ties.hold(board, now, single) if kept is None or not ties.apart(board, kept) else kept


def _meet(board: Board, node: NodeLike, free: Sequence[np.ndarray], shared: set[int], single: int) -> np.ndarray:
    """Tie operands position by position; where neither has the axis of the other's channels, keep one kind."""
    joined = ties.settled(board, reduce(partial(_meet_two, board, node, shared), free))
    if not ties.apart(board, joined):
        return ties.hold(board, joined, single)
    if set(varying(joined)) & shared:
        board.heads.append(joined)
    return joined


def _meet_two(board: Board, node: NodeLike, shared: set[int], left: np.ndarray, right: np.ndarray) -> np.ndarray:
    ours, theirs = set(varying(left)), set(varying(right))
    crossing = any(right.shape[axis] > 1 for axis in ours) or any(left.shape[axis] > 1 for axis in theirs)
    if crossing:
        return ties.join(board, left, right)
    met = board.atoms.source(node.name, MET, wall=True)
    kept, held = (left, right) if ours & shared and not theirs & shared else (right, left)
    return np.broadcast_to(core(kept), np.broadcast_shapes(kept.shape, ties.hold(board, held, met).shape))


RULES: Mapping[str, Rule] = {"matmul": matmul, "einsum": einsum}
