"""Symbolic dimensions: bound for the analysis, symbolic in the result; numbers that are computed from shapes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import pytest
from toys import Toy

from edgepress import runtime
from edgepress.groups import Grouping, find_groups
from edgepress.groups.binding import bindings
from edgepress.groups.shapes import Bound, bind
from edgepress.model import Model
from edgepress.normalize import normalize
from edgepress.surgery.cut import cut, silence
from edgepress.surgery.oracle import TOLERANCE, check_cut

SIZES = ({"N": 1, "T": 7}, {"N": 3, "T": 5}, {"N": 2, "T": 9})
"""Sizes a result is run with; the analysis assumes N = 1 and T = 8."""

SEQUENCE = "g (float[N,T,6] x) => (float[N,A,B] y)"
LENGTH = "s = Shape(x) n = Gather(s,zero) t = Gather(s,one)"
NUMBERS: dict[str, list[int]] = {"zero": [0], "one": [1], "two": [2], "four": [4], "six": [6], "eight": [8]}

COMPUTED = {
    # the batch and the heads share an axis: a target entry is a multiple of the number of heads
    "batch_times_heads": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) b = Reshape(a,split) c = Transpose<perm=[0,2,1,3]>(b)
        nh = Mul(n,four) k = Concat<axis=0>(nh,t,two) d = Reshape(c,k) e = Sigmoid(d)
        k2 = Concat<axis=0>(n,four,t,two) f = Reshape(e,k2) h = Transpose<perm=[0,2,1,3]>(f)
        k3 = Concat<axis=0>(n,t,eight) i = Reshape(h,k3) y = MatMul(i,w2) }}""",
        {**NUMBERS, "split": [0, 0, 4, 2], "w1": (6, 8), "w2": (8, 3)},
        (4,),
    ),
    "state_made_to_measure": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        x2 = Transpose<perm=[1,0,2]>(x) k = Concat<axis=0>(one,n,five) h0 = ConstantOfShape(k)
        a = GRU<hidden_size=5>(x2,w,r,,,h0) b = Squeeze(a,one) y = MatMul(b,w2) }}""",
        {**NUMBERS, "five": [5], "w": (1, 15, 6), "r": (1, 15, 5), "w2": (5, 3)},
        (5,),
    ),
    "gate_expanded_to_a_written_width": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) m = ReduceMean<keepdims=1>(a,one) g = Sigmoid(m)
        k = Concat<axis=0>(n,t,eight) e = Expand(g,k) p = Mul(a,e) y = MatMul(p,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (8, 3)},
        (8,),
    ),
    "constant_expanded": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) k = Concat<axis=0>(n,t,eight) e = Expand(c,k) p = Add(a,e) y = MatMul(p,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "c": (1, 1, 8), "w2": (8, 3)},
        (8,),
    ),
    "one_value_expanded": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) k = Concat<axis=0>(t,eight) e = Expand(c,k) e2 = Neg(e) p = Add(a,e2) y = MatMul(p,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "c": (1, 1), "w2": (8, 3)},
        (8,),
    ),
    "positions": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        o = ConstantOfShape<value = int64[1] {{1}}>(t) q = CumSum<exclusive=1>(o,nil) z = Gather<axis=0>(table,q)
        u = Unsqueeze(z,zero) a = MatMul(x,w1) p = Add(a,u) y = MatMul(p,w2) }}""",
        {**NUMBERS, "nil": np.array(0), "table": (16, 8), "w1": (6, 8), "w2": (8, 3)},
        (8,),
    ),
    # half of the width is computed: right for neither part when only one of them shrinks
    "halves_by_computed_bounds": Toy(
        f"""{SEQUENCE} {{
        a = MatMul(x,w1) sa = Shape<start=2>(a) half = Div(sa,two)
        l = Slice(a,zero,half,two) r = Slice(a,half,sa,two) lr = Relu(l) q = MatMul(lr,w2) p = Add(q,r)
        ry = Relu(p) y = MatMul(ry,w3) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (4, 4), "w3": (4, 3)},
        (4,),
        shared=1,
    ),
    "parts_by_computed_sizes": Toy(
        f"""{SEQUENCE} {{
        a = MatMul(x,w1) sa = Shape<start=2>(a) q = Div(sa,four) k = Sub(sa,q) parts = Concat<axis=0>(q,k)
        l, r = Split<axis=2>(a,parts) lr = Relu(l) rr = Sigmoid(r) c = Concat<axis=2>(rr,lr) y = MatMul(c,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (8, 3)},
        (2, 6),
    ),
    "resized_to_computed_sizes": Toy(
        """g (float[N,3,T,T] x) => (float[N,2,A,B] y) {
        a = Conv(x,w1) s = Shape(x) hw = Slice(s,two,four) hw2 = Mul(hw,two) n = Gather(s,zero)
        k = Concat<axis=0>(n,eight,hw2) r = Resize<mode="nearest">(a,,,k) y = Conv(r,w2) }""",
        {**NUMBERS, "w1": (8, 3, 1, 1), "w2": (2, 8, 1, 1)},
        (8,),
    ),
    "zeros_like": Toy(
        f"""{SEQUENCE} {{
        a = MatMul(x,w1) sa = Shape(a) z = ConstantOfShape(sa) p = Add(a,z) y = MatMul(p,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (8, 3)},
        (8,),
    ),
    "mask_of_positions": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) k = Concat<axis=0>(t,one) z = ConstantOfShape(k) p = Add(a,z) y = MatMul(p,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (8, 3)},
        (8,),
    ),
    "width_in_a_number": Toy(
        f"""{SEQUENCE} {{
        a = MatMul(x,w1) sa = Shape<start=2>(a) f = Cast<to=1>(sa) d = Div(a,f) b = MatMul(d,w2) r = Relu(b)
        y = MatMul(r,w3) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (8, 5), "w3": (5, 3)},
        (5,),
        stopped=("its width enters a computation", "graph output 'y'"),
    ),
    "length_in_a_number": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) sa = Shape(a) t2 = Gather(sa,one) f = Cast<to=1>(t2) d = Div(a,f) y = MatMul(d,w2) }}""",
        {**NUMBERS, "w1": (6, 8), "w2": (8, 3)},
        (8,),
    ),
    "matrix_made_at_run_time": Toy(
        f"""{SEQUENCE} {{ {LENGTH}
        a = MatMul(x,w1) k = Concat<axis=0>(n,eight,two) z = ConstantOfShape<value = float[1] {{0.5}}>(k)
        y = MatMul(a,z) }}""",
        {**NUMBERS, "w1": (6, 8)},
        (),
        stopped=("n_y",),
    ),
}


def feeds(model: Model, seed: int) -> list[dict[str, np.ndarray]]:
    """Inputs at every one of ``SIZES``."""
    random = np.random.default_rng(seed)
    found = []
    for sizes in SIZES:
        shapes = {
            name: [size if isinstance(size, int) else sizes[str(size)] for size in type_.shape or ()]
            for name, type_ in model.inputs.items()
        }
        found.append({name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
    return found


def draw(grouping: Grouping, seed: int) -> dict[str, list[int]]:
    """Some channels of every group that may lose any."""
    random = np.random.default_rng(seed)
    return {
        group.name: sorted(random.choice(group.size, random.integers(1, group.size), replace=False).tolist())
        for group in grouping.groups
        if not group.pinned and group.size > 1
    }


@pytest.mark.parametrize("name", COMPUTED)
def test_groups_around_computed_numbers(name: str) -> None:
    grouping = find_groups(COMPUTED[name].build())
    assert tuple(group.size for group in grouping.prunable) == COMPUTED[name].sizes
    reasons = [group.refusal.reason for group in grouping.groups if group.refusal is not None]
    left = [reason for reason in reasons if "residual" not in reason]
    assert len(left) == len(COMPUTED[name].stopped)
    assert all(piece in reason for piece, reason in zip(COMPUTED[name].stopped, left, strict=True)), left


@pytest.mark.parametrize("name", [name for name, toy in COMPUTED.items() if toy.sizes])
@pytest.mark.parametrize("seed", range(3))
def test_cuts_hold_at_other_sizes(name: str, seed: int) -> None:
    model = COMPUTED[name].build()
    grouping = find_groups(model)
    removed = draw(grouping, seed)
    cutting = cut(model, grouping, removed)
    samples = feeds(model, seed)
    assert check_cut(model, grouping, removed, cutting, samples) <= TOLERANCE
    assert dict(cutting.model.inputs) == dict(model.inputs)
    assert dict(cutting.model.outputs) == dict(model.outputs)
    whole, quiet = (runtime.run(x.session(), samples[0])["y"] for x in (model, silence(model, grouping, removed)))
    assert np.abs(whole - quiet).max() > 1e-3, "the comparison would see nothing"


@pytest.mark.parametrize("name", [name for name, toy in COMPUTED.items() if toy.sizes])
def test_computed_numbers_survive_normalization(name: str) -> None:
    model = normalize(COMPUTED[name].build(), feeds(COMPUTED[name].build(), 0)).model
    grouping = find_groups(model, {"T": 6})
    assert not grouping.assumed
    removed = draw(grouping, 1)
    assert check_cut(model, grouping, removed, cut(model, grouping, removed), feeds(model, 1)) <= TOLERANCE


def test_numbers_that_follow_by_themselves_are_left_alone() -> None:
    model = COMPUTED["zeros_like"].build()
    grouping = find_groups(model)
    smaller = cut(model, grouping, {"n_a": [0, 1]}).model
    assert [node.op for node in smaller.nodes] == [node.op for node in model.nodes]


def test_sizes_do_not_change_the_groups() -> None:
    model = COMPUTED["batch_times_heads"].build()
    found = [find_groups(model, {"T": size}) for size in (1, 3, 8)]
    assert all(repr(other.groups) == repr(found[0].groups) for other in found[1:])
    assert [other.sizes["T"] for other in found] == [1, 3, 8]


# --- sizes ------------------------------------------------------------------------------------------------


def conv(shape: str, *, fully: int = 0) -> Model:
    """Conv, Conv, or with ``fully`` features a Gemm behind them that fixes the size of the image."""
    if not fully:
        text = f"g (float[{shape}] x) => (float[P,4,Q,R] y) {{ a = Conv(x,w1) y = Conv(a,w2) }}"
        return Toy(text, {"w1": (6, 3, 3, 3), "w2": (4, 6, 3, 3)}, ()).build()
    text = f"g (float[{shape}] x) => (float[P,4] y) {{ a = Conv(x,w1) f = Flatten(a) y = Gemm(f,w2) }}"
    return Toy(text, {"w1": (6, 3, 3, 3), "w2": (fully, 4)}, ()).build()


@pytest.mark.parametrize("shape", ["N,3,H,W", "N,3,H,H", "?,3,?,?", "N,3,?,20", "2,3,9,9"])
def test_every_spelling_of_a_size_is_bound(shape: str) -> None:
    proto = conv(shape.replace("?", "U")).edit()
    for place, part in enumerate(shape.split(",")):
        if part == "?":
            proto.graph.input[0].type.tensor_type.shape.dim[place].Clear()
    grouping = find_groups(Model.of(proto))
    assert [group.size for group in grouping.prunable] == [6]
    assert grouping.assumed.keys() == {
        {"?": f"x:{place}"}.get(part, part)
        for place, part in enumerate(shape.split(","))
        if place and not part.isdigit()
    }


def test_known_sizes_are_not_assumed() -> None:
    model = conv("N,3,H,W", fully=6 * 11 * 19)
    assert find_groups(model).refusals[0].what == "model"
    grouping = find_groups(model, {"H": 13, "W": 21, "elsewhere": 3})
    assert [group.size for group in grouping.prunable] == [6]
    assert (grouping.sizes, grouping.assumed) == ({"N": 1, "H": 13, "W": 21}, {})


def test_sizes_are_tried_until_the_graph_goes_through() -> None:
    grouping = find_groups(conv("N,3,H,W", fully=6 * 30 * 30))
    assert grouping.assumed == {"H": 32, "W": 32}
    assert [group.size for group in grouping.prunable] == [6]


def test_a_batch_of_two_where_one_would_be_squeezed_away() -> None:
    text = """g (float[N,3,8,8] x) => (float[N,4] y) {
        a = Conv(x,w1) p = GlobalAveragePool(a) s = Squeeze(p) y = Gemm(s,w2) }"""
    grouping = find_groups(Toy(text, {"w1": (6, 3, 1, 1), "w2": (6, 4)}, ()).build())
    assert grouping.sizes == {"N": 2}
    assert "whichever axes are 1" in str(grouping.group("n_a").refusal)


def test_lengths_of_caches_add_up() -> None:
    text = """g (float[N,T,6] x, float[N,past,6] c, float[N,"past + T",6] m) => (float[N,P,6] y) {
        j = Concat<axis=1>(c,x) y = Add(j,m) }""".replace('"past + T"', "Z")
    proto = Toy(text, {}, ()).proto()
    proto.graph.input[2].type.tensor_type.shape.dim[1].dim_param = "past + T"
    sizes, assumed = next(iter(bindings(Model.of(proto), {"T": 3})))
    assert sizes == {"N": 1, "T": 3, "past": 8, "past + T": 11}
    assert assumed == {"past": 8, "past + T": 11}


def test_inputs_of_unknown_rank_refuse_the_analysis() -> None:
    proto = conv("N,3,8,8").edit()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    grouping = find_groups(Model.of(proto))
    assert not grouping.groups
    assert "'x' is not stated" in grouping.refusals[0].reason


def test_operators_that_onnx_does_not_know_are_run_to_learn_shapes() -> None:
    text = "g (float[N,3,8,8] x) => (float[N,4,8,8] y) { a = Conv(x,w1) b = Gelu(a) c = Conv(b,w2) y = Conv(c,w3) }"
    constants = {"w1": (6, 3, 1, 1), "w2": (7, 6, 1, 1), "w3": (4, 7, 1, 1)}
    proto = Toy(text, constants, (), opset=20).proto()
    proto.graph.node[1].domain = "com.microsoft"
    proto.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    bound = bind(Model.of(proto), {})
    assert isinstance(bound, Bound)
    assert bound.shapes["c"] == (1, 7, 8, 8)
    grouping = find_groups(Model.of(proto))
    assert 7 in [group.size for group in grouping.prunable]


def test_large_fillings_cost_nothing() -> None:
    text = """g (float[N,3,300,300] x) => (float[N,2,300,300] y) {
        a = Conv(x,w1) s = Shape(a) z = ConstantOfShape(s) b = Add(a,z) y = Conv(b,w2) }"""
    model = Toy(text, {"w1": (32, 3, 1, 1), "w2": (2, 32, 1, 1)}, ()).build()
    grouping = find_groups(model)
    assert [group.size for group in grouping.prunable] == [32]
    assert grouping.values["z"].shape == (1, 32, 300, 300)
    assert grouping.values["z"].strides == (0, 0, 0, 0)


# --- exports ----------------------------------------------------------------------------------------------


def attention_model() -> tuple[object, tuple[object, ...]]:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.places = nn.Embedding(50, 24), nn.Embedding(40, 24)
            self.query, self.key, self.value, self.out = (nn.Linear(24, 24) for _ in range(4))
            self.norm, self.up, self.down = nn.LayerNorm(24), nn.Linear(24, 40), nn.Linear(40, 5)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            count, length = ids.shape
            x = self.into(ids) + self.places(torch.arange(length))[None]
            q, k, v = (part(x).view(count, length, 4, 6).transpose(1, 2) for part in (self.query, self.key, self.value))
            mask = torch.full((length, length), -1e4)[None, None] * torch.tril(torch.ones(length, length))
            mixed = ((q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5 + mask).softmax(-1) @ v
            x = self.norm(x + self.out(mixed.transpose(1, 2).reshape(count, length, 24)))
            found: torch.Tensor = self.down(torch.nn.functional.gelu(self.up(x)))
            return found

    return Net().eval(), (torch.randint(0, 50, (2, 7)),)


def convolution_model() -> tuple[object, tuple[object, ...]]:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = nn.Conv1d(4, 12, 3, padding=1), nn.Linear(12, 12)
            self.second, self.last = nn.Conv1d(12, 10, 1), nn.Linear(10, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            count, _, length = x.shape
            y = torch.relu(self.first(x))
            gate = torch.sigmoid(self.gate(y.mean(-1))).view(count, -1, 1).expand(count, y.shape[1], length)
            z = nn.functional.silu(self.second(y * gate)).permute(0, 2, 1).reshape(count * length, -1)
            found: torch.Tensor = self.last(z).view(count, length, 3)
            return found

    return Net().eval(), (torch.randn(2, 4, 9),)


NETS: Mapping[str, tuple[Callable[[], tuple[object, tuple[object, ...]]], int, tuple[int, ...]]] = {
    "attention": (attention_model, 1, (4, 40)),
    "convolution": (convolution_model, 2, (12, 10)),
}


def exported(name: str, path: Path, opset: int, *, dynamo: bool) -> Model:
    """Written by torch with a free batch and a free length."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    build, length, _ = NETS[name]
    net, arguments = build()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            free = torch.export.Dim.DYNAMIC
            torch.onnx.export(
                net, arguments, path, dynamo=True, opset_version=opset, verbose=False, external_data=False,
                input_names=["x"], output_names=["y"], dynamic_shapes=[{0: free, length: free}],
            )  # fmt: skip
        else:
            torch.onnx.export(
                net, arguments, path, dynamo=False, opset_version=opset,
                input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N", length: "T"}},
            )  # fmt: skip
    return Model.load(path)


@pytest.mark.parametrize(
    ("name", "opset", "dynamo"),
    [
        ("attention", 14, False),
        ("attention", 17, False),
        ("convolution", 13, False),
        ("convolution", 16, False),
        ("attention", 21, True),
    ],
)
def test_exports_with_free_batch_and_length(name: str, opset: int, dynamo: bool, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    loaded = exported(name, tmp_path / "net.onnx", opset, dynamo=dynamo)
    random = np.random.default_rng(0)
    shapes = [(1, 7), (3, 5), (2, 9)]
    if name == "attention":
        samples = [{"x": random.integers(0, 50, shape)} for shape in shapes]
    else:
        samples = [{"x": random.standard_normal((n, 4, t)).astype(np.float32)} for n, t in shapes]
    model = normalize(loaded, samples[:2]).model
    grouping = find_groups(model)
    assert tuple(group.size for group in grouping.prunable) == NETS[name][2]
    removed = {group.name: list(range(group.size // 2)) for group in grouping.prunable}
    cutting = cut(model, grouping, removed)
    assert check_cut(model, grouping, removed, cutting, samples) <= TOLERANCE
    assert dict(cutting.model.inputs) == dict(loaded.inputs)
    assert cutting.model.parameters < model.parameters
