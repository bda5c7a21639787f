"""Channel groups and surgery of transformers: whole heads, neurons of feed-forward layers, and what stays."""

from __future__ import annotations

import numpy as np
import pytest
from attention_models import MODELS
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import Toy, feed

from edgepress.errors import InvariantError
from edgepress.groups import Grouping, find_groups
from edgepress.model import Model
from edgepress.ops.couple.products import einsum_letters, matmul_letters
from edgepress.surgery import mend
from edgepress.surgery.cut import cut, silence
from edgepress.surgery.oracle import TOLERANCE, check_cut


def choose(grouping: Grouping, seed: int) -> dict[str, list[int]]:
    """Random channels of every group that can lose some, residual streams included."""
    random = np.random.default_rng(seed)
    return {
        group.name: sorted(random.choice(group.size, int(random.integers(1, group.size)), replace=False).tolist())
        for group in grouping.groups
        if not group.pinned and group.size > 1
    }


def feeds(model: Model, seed: int) -> list[dict[str, np.ndarray]]:
    """Two feeds of different batch sizes."""
    return [feed(model, batch, seed) for batch in (1, 3)]


CUTTABLE = [name for name, toy in MODELS.items() if toy.sizes or toy.shared]


@pytest.mark.parametrize("name", MODELS)
def test_expected_groups(name: str) -> None:
    toy = MODELS[name]
    grouping = find_groups(toy.build())
    reasons = [group.refusal.reason for group in grouping.groups if group.refusal is not None]
    assert tuple(group.size for group in grouping.prunable) == toy.sizes, reasons
    shared = [reason for reason in reasons if "residual stream" in reason]
    others = [reason for reason in reasons if "residual stream" not in reason]
    assert len(shared) == toy.shared, reasons
    assert len(others) == len(toy.stopped), reasons
    assert all(piece in reason for piece, reason in zip(toy.stopped, others, strict=True)), others


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", CUTTABLE)
def test_removal_equals_silence(name: str, seed: int) -> None:
    model = MODELS[name].build()
    grouping = find_groups(model)
    removed = choose(grouping, seed)
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, feeds(model, seed)) <= TOLERANCE
    assert cutting.model.parameters < model.parameters
    quiet = silence(model, grouping, removed)
    assert any(not np.array_equal(values, model.constants[name]) for name, values in quiet.constants.items())


@pytest.mark.parametrize("name", CUTTABLE)
def test_cutting_down_to_one_channel(name: str) -> None:
    model = MODELS[name].build()
    grouping = find_groups(model)
    removed = {group.name: range(1, group.size) for group in grouping.groups if not group.pinned}
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, feeds(model, 0)) <= TOLERANCE
    assert find_groups(cutting.model).groups


# --- details ----------------------------------------------------------------------------------------------


def sites(name: str, group: int = 0) -> dict[tuple[str, int], tuple[str, tuple[int, ...]]]:
    """Role and shape of the index of every site of a prunable group."""
    found = find_groups(MODELS[name].build()).prunable[group]
    return {(site.tensor, site.axis): (site.role, site.index.shape) for site in found.sites}


def test_a_head_owns_its_part_of_a_fused_projection() -> None:
    assert sites("fused_and_split") == {
        ("w", 1): ("out", (4, 9)),
        ("b", 0): ("along", (4, 9)),
        ("wo", 0): ("in", (4, 3)),
    }
    group = find_groups(MODELS["fused_and_split"].build()).prunable[0]
    index = next(site.index for site in group.sites if site.tensor == "w")
    assert index[1].tolist() == [3, 4, 5, 15, 16, 17, 27, 28, 29]


def test_a_shared_key_head_owns_its_queries() -> None:
    assert sites("shared_keys") == {
        ("wq", 1): ("out", (2, 6)),
        ("wk", 1): ("out", (2, 3)),
        ("wv", 1): ("out", (2, 3)),
        ("wo", 0): ("in", (2, 6)),
    }


def test_constants_of_a_head_go_along() -> None:
    assert sites("slope_per_head")[("slope", 0)] == ("along", (4, 1))
    assert sites("operator_shared")[("mask", 0)] == ("along", (2, 2))
    assert sites("foreign_separate")[("bias", 0)] == ("along", (4, 9))
    assert sites("looked_up_bias")[("table", 1)] == ("out", (4, 1))
    assert sites("einsum_weights") == {
        ("wq", 1): ("out", (4, 1)),
        ("wk", 1): ("out", (4, 1)),
        ("wv", 1): ("out", (4, 1)),
        ("wo", 0): ("in", (4, 1)),
    }


@pytest.mark.parametrize(("name", "constants"), [("rotated", ("cos", "sin")), ("normalized_heads", ("gq", "bq", "gk"))])
def test_constants_of_all_heads_stay(name: str, constants: tuple[str, ...]) -> None:
    assert not {tensor for tensor, _ in sites(name)} & set(constants)


def test_embeddings_make_channels() -> None:
    assert sites("embedding") == {
        ("table", 1): ("out", (12, 1)),
        ("places", 2): ("along", (12, 1)),
        ("wo", 0): ("in", (12, 1)),
    }
    assert find_groups(MODELS["embedding"].build()).prunable[0].producers == ("n_e",)


def test_a_class_token_goes_along() -> None:
    assert sites("class_token")[("token", 2)] == ("along", (12, 1))


def test_a_stream_is_found_once_with_all_its_layers() -> None:
    grouping = find_groups(MODELS["stream"].build())
    stream = grouping.group("n_h")
    assert stream.producers == ("n_h", "n_d")
    assert stream.consumers == ("n_u", "n_y")
    assert {site.tensor for site in stream.sites if site.role == "along"} == {"ga", "ba", "gb", "bb"}
    assert [refusal.what for refusal in grouping.refusals] == ["n_n"]


# --- mutants: the oracle has teeth --------------------------------------------------------------------------


def caught(name: str) -> bool:
    """Whether the checks in cut and the oracle notice that something is wrong, for some random removal."""
    model = MODELS[name].build()
    for seed in range(6):
        grouping = find_groups(model)
        try:
            removed = choose(grouping, seed)
            check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, seed))
        except InvariantError:
            return True
    return False


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("Attention", "operator_flat"),
        ("Attention", "operator_shared"),
        ("RotaryEmbedding", "rotary_flat"),
        ("MultiHeadAttention", "foreign_separate"),
        ("GroupQueryAttention", "foreign_shared_alone"),
        ("GroupQueryAttention", "foreign_shared_packed"),
        ("Reshape", "plain"),
        ("Split", "fused_in_thirds"),
        ("Slice", "gated_sliced"),
        ("Expand", "shared_keys"),
    ],
)
def test_every_mend_is_needed(operator: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not caught(name)
    monkeypatch.setattr(mend, "MENDERS", {op: mender for op, mender in mend.MENDERS.items() if op != operator})
    assert caught(name)


MUTANTS = {
    "sums do not tie": ("products._tie_summed", lambda board, labels, summed, single: labels, "single_head"),
    "operands are not tied": ("products._meet_two", lambda board, node, shared, left, right: left, "plain"),
    "fixed operands are ignored": ("ties.respect", lambda board, labels, stuck: labels, "fixed_scores"),
    "constants do not go along": ("elementwise._carry", lambda board, node, slot, result: None, "slope_per_head"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_caught(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, replacement, name = MUTANTS[mutant]
    assert not caught(name)
    monkeypatch.setattr(f"edgepress.ops.couple.{target}", replacement)
    assert caught(name)


# --- laws -------------------------------------------------------------------------------------------------

SIZES = {"h": 2, "t": 3, "s": 4, "d": 3, "e": 2}
LETTERS = st.permutations("htsde").flatmap(lambda order: st.integers(1, 3).map(lambda count: "".join(order[:count])))


@st.composite
def product_of_two(draw: st.DrawFn) -> Toy:
    """Two tensors whose positions are channels one by one, multiplied and read by a layer."""
    left, right = draw(LETTERS), draw(LETTERS)
    every = sorted({*left, *right})
    result = "".join(draw(st.lists(st.sampled_from(every), unique=True, max_size=3)))
    single = draw(st.sampled_from(["", *every]))  # an axis of length 1
    sizes = [[1 if letter == single else SIZES[letter] for letter in term] for term in (left, right, result)]
    (a, b, y) = (int(np.prod(shape)) for shape in sizes)
    scores = draw(st.sampled_from(["Relu(c)", "Sigmoid(c)", "Softmax<axis=-1>(c)", "Mul(c,c)"]))
    text = f"""g (float[N,5] x) => (float[N,3] y) {{
        a0 = MatMul(x,wa)  a1 = Relu(a0)  a = Reshape(a1,sa)  b0 = MatMul(x,wb)  b = Reshape(b0,sb)
        c = Einsum<equation="n{left},n{right}->n{result}">(a,b)  d = {scores}  f = Reshape(d,flat)
        y = MatMul(f,wy) }}"""
    constants = {"wa": (5, a), "wb": (5, b), "wy": (y, 3), "flat": [0, y]}
    return Toy(text, constants | {"sa": [0, *sizes[0]], "sb": [0, *sizes[1]]}, ())


@given(product_of_two(), st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_any_product_of_two_tensors_is_exact_or_refused(toy: Toy, seed: int) -> None:
    model = toy.build()
    grouping = find_groups(model)
    removed = choose(grouping, seed)
    check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, seed))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_letters_of_matmul_mean_matmul(left: int, right: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    first, second, result = matmul_letters(left, right)
    names = {letter: chr(ord("a") + place) for place, letter in enumerate(dict.fromkeys([*first, *second]))}
    a, b = (random.integers(-4, 5, [2] * rank) for rank in (left, right))
    equation = (
        ",".join("".join(names[x] for x in of) for of in (first, second)) + "->" + "".join(names[x] for x in result)
    )
    assert np.array_equal(np.einsum(equation, a, b), a @ b)


@pytest.mark.parametrize(
    ("equation", "ranks", "expected"),
    [
        ("ij,jk->ik", (2, 2), ([["i", "j"], ["j", "k"]], ["i", "k"])),
        ("ba,cb", (2, 2), ([["b", "a"], ["c", "b"]], ["a", "c"])),
        ("...i, ij -> ...j", (3, 2), ([["1", "0", "i"], ["i", "j"]], ["1", "0", "j"])),
        ("...i,...i->...", (2, 3), ([["0", "i"], ["1", "0", "i"]], ["1", "0"])),
        ("...b,ba", (2, 2), ([["0", "b"], ["b", "a"]], ["0", "a"])),
        ("ii->i", (2,), "it takes a diagonal"),
    ],
)
def test_letters_of_einsum(equation: str, ranks: tuple[int, ...], expected: object) -> None:
    assert einsum_letters(equation, ranks) == expected
