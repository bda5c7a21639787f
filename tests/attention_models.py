"""Small transformers, as ONNX text, for the tests of channel groups and surgery.

Twelve channels in four heads of three over six positions, unless said otherwise. ``q``, ``k``, ``v`` are the heads
of x, ``[N, 4, 6, 3]``; ``s`` are scores, ``p`` probabilities, ``o`` what the heads answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from toys import Toy

Constants = Mapping[str, "Sequence[int] | np.ndarray"]

X = "g (float[N,6,12] x) => (float[N,6,7] y)"
SPLIT, TURNED = "Transpose<perm=[0,2,1,3]>", "Transpose<perm=[0,1,3,2]>"
WEIGHTS: Constants = {"wq": (12, 12), "wk": (12, 12), "wv": (12, 12), "wo": (12, 7)}
SHAPES: Constants = {"heads": [0, 6, 4, 3], "flat": [0, 6, 12]}
BASE: Constants = {**WEIGHTS, **SHAPES}
SCORES = f"kt = {TURNED}(k)  s = MatMul(q,kt)"
PROBABILITIES = "p = Softmax<axis=-1>(s)"
ANSWER = "o = MatMul(p,v)"
OUT = f"o1 = {SPLIT}(o)  o2 = Reshape(o1,flat)  y = MatMul(o2,wo)"


def project(name: str, heads: str = "heads") -> str:
    """Project x and split it into heads."""
    return f"{name}0 = MatMul(x,w{name})  {name}1 = Reshape({name}0,{heads})  {name} = {SPLIT}({name}1)"


QKV = f"{project('q')}  {project('k')}  {project('v')}"


def toy(*lines: str, more: Constants | None = None, sizes: tuple[int, ...] = (4,), **expected: object) -> Toy:
    """A toy whose graph is these lines."""
    return Toy(f"{X} {{ {'  '.join(lines)} }}", {**BASE, **(more or {})}, sizes, **expected)  # type: ignore[arg-type]


SINGLE = "a product of two computed tensors sums over all of its channels"
MET = "spreads it over channels of another kind"
ONE = (SINGLE, SINGLE, "graph output 'y'")

TOTAL = np.array(6, np.int32)
COSINES = np.cos(np.arange(24).reshape(6, 4) / 5).astype(np.float32)
SINES = np.sin(np.arange(24).reshape(6, 4) / 5).astype(np.float32)


def rotated(name: str, cosines: str = "cos", sines: str = "sin") -> str:
    """Turn pairs of channels of ``<name>h``, which makes ``<name>``."""
    return f"""{name}a = Slice({name}h,zero,two,last)  {name}b = Slice({name}h,two,four,last)  {name}n = Neg({name}b)
        {name}r = Concat<axis=-1>({name}n,{name}a)  {name}c = Mul({name}h,{cosines})  {name}s = Mul({name}r,{sines})
        {name} = Add({name}c,{name}s)"""


def to_rotate(name: str) -> str:
    """Project x into three heads of four channels, before they are turned."""
    return f"{name}0 = MatMul(x,w{name})  {name}1 = Reshape({name}0,three)  {name}h = {SPLIT}({name}1)"


TURNS: Constants = {"three": [0, 6, 3, 4], "zero": [0], "two": [2], "four": [4], "last": [3]}

FORMS = {
    "plain": toy(QKV, SCORES, PROBABILITIES, ANSWER, OUT),
    "scaled_and_masked": toy(
        *(QKV, SCORES, "c = Mul(s,scale)  m = Add(c,mask)  w = Where(shown,m,low)"),
        *("p1 = Softmax<axis=-1>(w)  p = Dropout(p1)", ANSWER, OUT),
        more={"scale": (), "mask": (6, 6), "shown": np.tri(6, dtype=bool), "low": ()},
    ),
    "queries_scaled_and_biased": toy(
        *("q0 = MatMul(x,wq)  qb = Add(q0,bq)  q1 = Reshape(qb,heads)", f"q2 = {SPLIT}(q1)  q = Div(q2,scale)"),
        *(project("k"), project("v"), SCORES, PROBABILITIES, ANSWER, OUT),
        more={"bq": (12,), "scale": ()},
    ),
    # ALiBi: one slope per head goes along
    "slope_per_head": toy(
        *(QKV, SCORES, "m = Add(s,slope)  p = Softmax<axis=-1>(m)", ANSWER, OUT), more={"slope": (4, 1, 6)}
    ),
    "fused_and_split": toy(
        "f = MatMul(x,w)  fb = Add(f,b)  f5 = Reshape(fb,five)  ft = Transpose<perm=[2,0,3,1,4]>(f5)",
        "qs, ks, vs = Split<axis=0,num_outputs=3>(ft)  q = Squeeze(qs,front)  k = Squeeze(ks,front)",
        *("v = Squeeze(vs,front)", SCORES, PROBABILITIES, ANSWER, OUT),
        more={"w": (12, 36), "b": (36,), "five": [0, 6, 3, 4, 3], "front": [0]},
    ),
    "fused_and_gathered": toy(
        "f = MatMul(x,w)  f5 = Reshape(f,five)  ft = Transpose<perm=[2,0,3,1,4]>(f5)",
        "q = Gather<axis=0>(ft,first)  k = Gather<axis=0>(ft,second)  v = Gather<axis=0>(ft,third)",
        *(SCORES, PROBABILITIES, ANSWER, OUT),
        more={"w": (12, 36), "five": [0, 6, 3, 4, 3]}
        | {name: np.array(n) for n, name in enumerate(("first", "second", "third"))},
    ),
    # GPT-2: q, k and v are thirds of one projection
    "fused_in_thirds": toy(
        "f = MatMul(x,w)  q0, k0, v0 = Split<axis=-1>(f,thirds)",
        *(f"{n}1 = Reshape({n}0,heads)  {n} = {SPLIT}({n}1)" for n in "qkv"),
        *(SCORES, PROBABILITIES, ANSWER, OUT),
        more={"w": (12, 36), "thirds": [12, 12, 12]},
    ),
    "rotated": toy(
        *(to_rotate("q"), rotated("q"), to_rotate("k"), rotated("k"), project("v", "three")),
        *(SCORES, PROBABILITIES, ANSWER, OUT),
        more={**TURNS, "cos": COSINES, "sin": SINES},
        sizes=(3,),
    ),
    # two key-value heads, each shared by two queries
    "shared_keys": toy(
        *(project("q"), project("k", "pair"), project("v", "pair")),
        "k5 = Unsqueeze(k,two)  ke = Expand(k5,wide)  kr = Reshape(ke,four)  kt = Transpose<perm=[0,1,3,2]>(kr)",
        "v5 = Unsqueeze(v,two)  ve = Expand(v5,wide)  vr = Reshape(ve,four)",
        *("s = MatMul(q,kt)", PROBABILITIES, "o = MatMul(p,vr)", OUT),
        more={"wk": (12, 6), "wv": (12, 6), "pair": [0, 6, 2, 3], "two": [2], "wide": [1, 2, 2, 6, 3]}
        | {"four": [0, 4, 6, 3]},
        sizes=(2,),
    ),
    # one key-value head: query heads go one by one, it stays
    "one_key": toy(
        *(project("q"), project("k", "one"), project("v", "one"), SCORES, PROBABILITIES, ANSWER, OUT),
        more={"wk": (12, 3), "wv": (12, 3), "one": [0, 6, 1, 3]},
        stopped=(SINGLE, MET, "graph output 'y'"),
    ),
    # nothing can go along heads that do not shrink: each column of the values is a channel of all heads
    "fixed_scores": Toy(
        f"g (float[N,6,12] x, float[N,4,6,6] p) => (float[N,6,7] y) {{ {project('v')} {ANSWER} {OUT} }}", BASE, (3,)
    ),
    "single_head": toy(
        "q = MatMul(x,wq)  k = MatMul(x,wk)  v = MatMul(x,wv)  kt = Transpose<perm=[0,2,1]>(k)",
        *("s = MatMul(q,kt)", PROBABILITIES, ANSWER, "y = MatMul(o,wo)"),
        sizes=(12,),
        stopped=ONE,
    ),
    # each head normalizes its queries and keys: its channels stay together
    "normalized_heads": toy(
        *(project("q"), project("k"), project("v"), "qn = LayerNormalization(q,gq,bq)  kn = LayerNormalization(k,gk)"),
        *(f"kt = {TURNED}(kn)  s = MatMul(qn,kt)", PROBABILITIES, ANSWER, OUT),
        more={"gq": (3,), "bq": (3,), "gk": (3,)},
    ),
    "normalized_heads_exported": toy(
        *(project("q"), project("k"), project("v"), "m = ReduceMean<keepdims=1>(q,last)  qc = Sub(q,m)"),
        "qq = Pow(qc,square)  va = ReduceMean<keepdims=1>(qq,last)  sd = Sqrt(va)  qd = Div(qc,sd)  qn = Mul(qd,gq)",
        *("kt = Transpose<perm=[0,1,3,2]>(k)  s = MatMul(qn,kt)", PROBABILITIES, ANSWER, OUT),
        more={"last": [-1], "square": np.array(2, np.float32), "gq": (3,)},
    ),
    # scores of one head weigh those of the others: query heads are consumed, answering heads are made
    "talking_heads": toy(
        *(QKV, SCORES, PROBABILITIES, "t = Conv<kernel_shape=[1,1]>(p,wt)  o = MatMul(t,v)", OUT),
        more={"wt": (4, 4, 1, 1)},
        sizes=(4, 4),
    ),
    "cross": Toy(
        f"""g (float[N,6,12] x, float[N,5,8] z) => (float[N,6,7] y) {{ {project("q")}
        k0 = MatMul(z,wk)  k1 = Reshape(k0,five)  k = {SPLIT}(k1)  v0 = MatMul(z,wv)  v1 = Reshape(v0,five)
        v = {SPLIT}(v1)  {SCORES}  {PROBABILITIES}  {ANSWER}  {OUT} }}""",
        {**BASE, "wk": (8, 12), "wv": (8, 12), "five": [0, 5, 4, 3]},
        (4,),
    ),
    # softmax of queries over channels, keys and values first: heads still, and nothing within them
    "linear": toy(
        QKV,
        "qs = Softmax<axis=-1>(q)  ks = Softmax<axis=-2>(k)  kt = Transpose<perm=[0,1,3,2]>(ks)",
        *("c = MatMul(kt,v)  o = MatMul(qs,c)", OUT),
    ),
    "linear_single_head": toy(
        "q0 = MatMul(x,wq)  k0 = MatMul(x,wk)  v = MatMul(x,wv)  q = Elu(q0)  k = Elu(k0)",
        "kt = Transpose<perm=[0,2,1]>(k)  c = MatMul(kt,v)  o = MatMul(q,c)  y = MatMul(o,wo)",
        sizes=(12,),
        stopped=(SINGLE, MET, "graph output 'y'"),
    ),
    # every channel meets every other one
    "gram": toy(
        "a = MatMul(x,wq)  at = Transpose<perm=[0,2,1]>(a)  c = MatMul(at,a)  b = MatMul(x,wk)  d = MatMul(b,c)",
        "y = MatMul(d,wo)",
        sizes=(),
        stopped=(MET, SINGLE, "graph output 'y'"),
    ),
    # attention between the channels of a head (Restormer): the same heads
    "between_channels": toy(
        QKV,
        "qt = Transpose<perm=[0,1,3,2]>(q)  c = MatMul(qt,k)  p = Softmax<axis=-1>(c)",
        "vt = Transpose<perm=[0,1,3,2]>(v)  a = MatMul(p,vt)  o = Transpose<perm=[0,1,3,2]>(a)",
        OUT,
    ),
    # heads one by one: no axis of heads, so queries and keys stay, and values go column by column
    "unrolled": toy(
        "q0 = MatMul(x,wq)  k0 = MatMul(x,wk)  v0 = MatMul(x,wv)  qa, qb = Split<axis=-1,num_outputs=2>(q0)",
        "ka, kb = Split<axis=-1,num_outputs=2>(k0)  va, vb = Split<axis=-1,num_outputs=2>(v0)",
        "ta = Transpose<perm=[0,2,1]>(ka)  sa = MatMul(qa,ta)  pa = Softmax<axis=-1>(sa)  oa = MatMul(pa,va)",
        "tb = Transpose<perm=[0,2,1]>(kb)  sb = MatMul(qb,tb)  pb = Softmax<axis=-1>(sb)  ob = MatMul(pb,vb)",
        "o = Concat<axis=-1>(oa,ob)  y = MatMul(o,wo)",
        sizes=(6, 6),
        stopped=(SINGLE,) * 4 + ("graph output 'y'",),
    ),
    # T5: a row of numbers per head, looked up by computed distances
    "looked_up_bias": Toy(
        f"""g (float[N,6,12] x, int64[6,6] distance) => (float[N,6,7] y) {{ {QKV} {SCORES}
        r = Gather<axis=0>(table,distance)  rt = Transpose<perm=[2,0,1]>(r)  u = Unsqueeze(rt,front)  m = Add(s,u)
        p = Softmax<axis=-1>(m)  {ANSWER}  {OUT} }}""",
        {**BASE, "table": (9, 4), "front": [0]},
        (4,),
    ),
    "scores_are_shown": Toy(
        f"""g (float[N,6,12] x) => (float[N,6,7] y, float[N,4,6,6] p) {{
        {QKV}  {SCORES}  {PROBABILITIES}  {ANSWER}  {OUT} }}""",
        BASE,
        (),
        stopped=("graph output 'p'", "graph output 'y'"),
    ),
}
"""How exporters write attention."""

EINSUMS = {
    "einsum_heads": toy(
        "q0 = MatMul(x,wq)  q = Reshape(q0,heads)  k0 = MatMul(x,wk)  k = Reshape(k0,heads)  v0 = MatMul(x,wv)",
        'v = Reshape(v0,heads)  s = Einsum<equation="bthd,bshd->bhts">(q,k)',
        *(PROBABILITIES, 'o = Einsum<equation="bhts,bshd->bthd">(p,v)  o2 = Reshape(o,flat)  y = MatMul(o2,wo)'),
    ),
    # weights per head: two axes of one weight are one axis of heads
    "einsum_weights": toy(
        'q = Einsum<equation="btc,chd->bhtd">(x,wq)  k = Einsum<equation="btc,chd->bhtd">(x,wk)',
        'v = Einsum<equation="btc,chd->bhtd">(x,wv)  s = Einsum<equation="bhtd,bhsd->bhts">(q,k)',
        *(PROBABILITIES, ANSWER, 'y = Einsum<equation="bhtd,hde->bte">(o,wo)'),
        more={"wq": (12, 4, 3), "wk": (12, 4, 3), "wv": (12, 4, 3), "wo": (4, 3, 7)},
    ),
    "einsum_linear": toy(
        'a = Einsum<equation="...c,ce->...e">(x,wq)  b = Relu(a)  y = Einsum<equation="btc,ec -> bte">(b,wo)',
        more={"wo": (7, 12)},
        sizes=(12,),
    ),
    "einsum_implicit": toy(
        'a = Einsum<equation="btc,cu">(x,wq)  b = Relu(a)  y = MatMul(b,wo)',
        more={"wq": (12, 9), "wo": (9, 7)},
        sizes=(9,),
    ),
    "einsum_by_channel": toy(
        'a = MatMul(x,wq)  b = Einsum<equation="btc,c->btc">(a,scale)  y = MatMul(b,wo)',
        more={"scale": (12,)},
        sizes=(12,),
    ),
    "einsum_diagonal": Toy(
        """g (float[N,6,12] x) => (float[N,9,7] y, float[N,9] z) {
        a = MatMul(w1,x)  b = MatMul(a,w2)  z = Einsum<equation="btt->bt">(b)  y = MatMul(a,wo) }""",
        {"w1": (9, 6), "w2": (12, 9), "wo": (12, 7)},
        (),
        stopped=("it takes a diagonal", "graph output 'y'"),
    ),
}
"""Einsum."""

LAYERS = {
    "gated": toy(
        "a = MatMul(x,wq)  b = MatMul(x,wk)  s = Sigmoid(a)  u = Mul(a,s)  g1 = Mul(u,b)  y = MatMul(g1,wo)",
        sizes=(12,),
    ),
    "gated_fused": toy(
        "a = MatMul(x,w)  l, r = Split<axis=-1>(a,halves)  s = Sigmoid(l)  u = Mul(r,s)  y = MatMul(u,wo)",
        more={"w": (12, 24), "halves": [12, 12]},
        sizes=(12,),
    ),
    "gated_sliced": toy(
        "a = MatMul(x,w)  l = Slice(a,zero,half,last)  r = Slice(a,half,end,last)  s = Gelu(l)  u = Mul(r,s)",
        "y = MatMul(u,wo)",
        more={"w": (12, 24), "zero": [0], "half": [12], "end": [2**62], "last": [2]},
        sizes=(12,),
        opset=20,
    ),
    # a block before its normalization: the stream is refused once, with all layers that write to it
    "stream": toy(
        "h = MatMul(x,we)  n = LayerNormalization(h,ga,ba)  u = MatMul(n,wu)  g1 = Relu(u)  d = MatMul(g1,wd)",
        "j = Add(h,d)  m = LayerNormalization(j,gb,bb)  y = MatMul(m,wo)",
        more={"we": (12, 12), "ga": (12,), "ba": (12,), "wu": (12, 9), "wd": (9, 12), "gb": (12,), "bb": (12,)},
        sizes=(9,),
        stopped=("'n_n': it normalizes over its channels", "graph output 'y'"),
    ),
    "stream_exported": toy(
        "h = MatMul(x,we)  mu = ReduceMean(h,last)  c = Sub(h,mu)  c2 = Pow(c,square)  va = ReduceMean(c2,last)",
        "e = Add(va,eps)  sd = Sqrt(e)  n0 = Div(c,sd)  n1 = Mul(n0,ga)  n = Add(n1,ba)  u = MatMul(n,wu)",
        "y = MatMul(u,wd)",
        more={"we": (12, 12), "ga": (12,), "ba": (12,), "wu": (12, 9), "wd": (9, 7), "last": [-1]}
        | {"square": np.array(2, np.float32), "eps": np.array(1e-5, np.float32)},
        sizes=(9,),
        stopped=("it averages over channels, so removing one would change the rest", "graph output 'y'"),
    ),
    "root_mean_square": toy(
        "h = MatMul(x,we)  n = RMSNormalization(h,ga)  u = MatMul(n,wu)  y = MatMul(u,wd)",
        more={"we": (12, 12), "ga": (12,), "wu": (12, 9), "wd": (9, 7)},
        sizes=(9,),
        stopped=("'n_n': it normalizes over its channels", "graph output 'y'"),
        opset=23,
    ),
    "skip_layer": toy(
        "a = MatMul(x,we)  b = MatMul(x,wf)  n, p1, p2, t = com.microsoft.SkipLayerNormalization(a,b,ga,ba,bias)",
        "u = MatMul(n,wu)  z = MatMul(t,wv)  j = Add(u,z)  r = Relu(j)  y = MatMul(r,wd)",
        more={"we": (12, 12), "wf": (12, 12), "ga": (12,), "ba": (12,), "bias": (12,), "wu": (12, 9), "wv": (12, 9)}
        | {"wd": (9, 7)},
        sizes=(),
        shared=1,
        stopped=("it normalizes over its channels", "graph output 'y'"),
        foreign=True,
    ),
    "embedding": Toy(
        """g (int64[N,6] i) => (float[N,6,7] y) {
        e = Gather<axis=0>(table,i)  p = Add(e,places)  y = MatMul(p,wo) }""",
        {"table": (20, 12), "places": (1, 6, 12), "wo": (12, 7)},
        (12,),
    ),
    # the table is also read as the weights of the output, through a Transpose of a constant
    "tied_embedding": Toy(
        """g (int64[N,6] i) => (float[N,6,20] y) {
        e = Gather<axis=0>(table,i)  u = MatMul(e,wu)  r = Relu(u)  d = MatMul(r,wd)
        t = Transpose<perm=[1,0]>(table)  y = MatMul(d,t) }""",
        {"table": (20, 12), "wu": (12, 9), "wd": (9, 12)},
        (9,),
        stopped=("constant", "computed"),
    ),
    # two lookups in one table: its channels go for both
    "table_read_twice": Toy(
        """g (int64[N,6] i, int64[N,6] j) => (float[N,6,7] y) {
        e = Gather<axis=0>(table,i)  d = Gather<axis=0>(table,j)  g1 = Mul(e,d)  y = MatMul(g1,wo) }""",
        {"table": (20, 12), "wo": (12, 7)},
        (12,),
    ),
    "table_of_columns": Toy(
        """g (int64[N,6] i) => (float[7,N,6] y) {
        e = Gather<axis=1>(table,i)  t = Transpose<perm=[1,2,0]>(e)  z = MatMul(t,wo)
        y = Transpose<perm=[2,0,1]>(z) }""",
        {"table": (12, 20), "wo": (12, 7)},
        (12,),
    ),
    # tokens picked while it runs keep their channels
    "picked_token": Toy(
        """g (float[N,6,12] x, int64[2] i) => (float[N,2,7] y) {
        a = MatMul(x,wq)  b = Gather<axis=1>(a,i)  y = MatMul(b,wo) }""",
        {"wq": (12, 9), "wo": (9, 7)},
        (9,),
    ),
    "picked_channels": Toy(
        """g (float[N,6,12] x, int64[2] i) => (float[N,6,7] y) {
        a = MatMul(x,wq)  b = Gather<axis=2>(a,i)  y = MatMul(b,wo) }""",
        {"wq": (12, 9), "wo": (2, 7)},
        (),
        stopped=("which channels it picks", "graph output 'y'"),
    ),
    # a class token and positions are constants beside and over the channels of the patches
    "class_token": Toy(
        """g (float[N,3,8,8] x) => (float[N,17,7] y) {
        a = Conv<kernel_shape=[2,2],strides=[2,2]>(x,wp)  f = Reshape(a,flat)  t = Transpose<perm=[0,2,1]>(f)
        z = ReduceMean(t,tokens)  c = Mul(z,none)  k = Add(c,token)  j = Concat<axis=1>(k,t)  e = Add(j,places)
        y = MatMul(e,wo) }""",
        {"wp": (12, 3, 2, 2), "flat": [0, 12, 16], "tokens": [1], "none": (), "token": (1, 1, 12)}
        | {"places": (1, 17, 12), "wo": (12, 7)},
        (12,),
    ),
    "weights_per_block": toy(
        "a = Reshape(x,blocks)  b = MatMul(a,w1)  r = Relu(b)  c = MatMul(r,w2)",
        "f = Reshape(c,flat2)  y = MatMul(f,wo)",
        more={"blocks": [0, 2, 3, 12], "w1": (2, 12, 9), "w2": (2, 9, 5), "flat2": [0, 6, 5], "wo": (5, 7)},
        sizes=(9, 5),
    ),
    "transposed_product": toy(
        "k = MatMul(x,wk)  k1 = Reshape(k,heads)  kt = Transpose<perm=[0,2,1,3]>(k1)",
        f"{project('q')}  {project('v')}  s = com.microsoft.FusedMatMul<transB=1,alpha=0.5>(q,kt)",
        *(PROBABILITIES, ANSWER, "o1 = Transpose<perm=[0,2,1,3]>(o)  o2 = Reshape(o1,flat)"),
        "y = com.microsoft.FusedMatMul<transB=1>(o2,wo)",
        more={"wo": (7, 12)},
        foreign=True,
    ),
    "vectors": toy(
        "a = MatMul(x,wq)  r = Relu(a)  s = MatMul(r,v)  u = Unsqueeze(s,last)  b = Mul(r,u)  y = MatMul(b,wo)",
        more={"v": (12,), "last": [2]},
        sizes=(12,),
    ),
    # weights along positions: channels go through
    "mixed_positions": toy(
        "a = MatMul(x,wq)  b = MatMul(positions,a)  r = Relu(b)  y = MatMul(r,wo)",
        more={"positions": (6, 6)},
        sizes=(12,),
    ),
    # MLP-mixer: weights along positions make channels of their own, which meet the stream crosswise
    "mixer": toy(
        "h = MatMul(x,we)  n = LayerNormalization(h,ga,ba)  t = Transpose<perm=[0,2,1]>(n)  u = MatMul(t,wu)",
        "g1 = Relu(u)  d = MatMul(g1,wd)  dt = Transpose<perm=[0,2,1]>(d)  j = Add(h,dt)  y = MatMul(j,wo)",
        more={"we": (12, 12), "ga": (12,), "ba": (12,), "wu": (6, 9), "wd": (9, 6)},
        sizes=(9,),
        stopped=(
            "'n_n': it normalizes over its channels",
            "channels that lie along different axes",
            "graph output 'y'",
        ),
    ),
    # gMLP: half of the neurons gate the other half through weights along positions
    "spatial_gate": toy(
        "a = MatMul(x,w)  l, r = Split<axis=-1>(a,halves)  t = Transpose<perm=[0,2,1]>(r)  m = MatMul(t,positions)",
        "b = Transpose<perm=[0,2,1]>(m)  u = Mul(l,b)  y = MatMul(u,wo)",
        more={"w": (12, 24), "halves": [12, 12], "positions": (6, 6)},
        sizes=(12,),
    ),
    # conformer: a convolution module between two pointwise layers
    "convolution_module": toy(
        "t = Transpose<perm=[0,2,1]>(x)  a = Conv<kernel_shape=[1]>(t,wa)  l, r = Split<axis=1,num_outputs=2>(a)",
        "s = Sigmoid(r)  u = Mul(l,s)  d = Conv<kernel_shape=[3],pads=[1,1],group=9>(u,wd)",
        "n = BatchNormalization(d,g1,b1,mean,variance)  h = Sigmoid(n)  w = Mul(n,h)  c = Conv<kernel_shape=[1]>(w,wc)",
        "y = Transpose<perm=[0,2,1]>(c)",
        more={
            "wa": (18, 12, 1),
            "wd": (9, 1, 3),
            "g1": (9,),
            "b1": (9,),
            "mean": (9,),
            "variance": (9,),
            "wc": (7, 9, 1),
        },
        sizes=(9,),
    ),
}
"""What stands around attention."""

Q3 = "q = MatMul(x,wq)  k = MatMul(x,wk)  v = MatMul(x,wv)"

OPERATORS = {
    "operator_flat": toy(Q3, "o = Attention<q_num_heads=4,kv_num_heads=4>(q,k,v)  y = MatMul(o,wo)", opset=23),
    "operator_heads": toy(QKV, "o = Attention(q,k,v)", OUT, opset=23),
    "operator_shared": toy(
        Q3,
        "o = Attention<q_num_heads=4,kv_num_heads=2,is_causal=1>(q,k,v,mask)  y = MatMul(o,wo)",
        more={"wk": (12, 6), "wv": (12, 6), "mask": (4, 6, 6)},
        sizes=(2,),
        opset=23,
    ),
    "operator_one_key": toy(
        Q3,
        "o = Attention<q_num_heads=4,kv_num_heads=1>(q,k,v)  y = MatMul(o,wo)",
        more={"wk": (12, 3), "wv": (12, 3)},
        stopped=(SINGLE, MET, "graph output 'y'"),
        opset=23,
    ),
    "operator_bias": Toy(
        f"""g (float[N,6,12] x, int64[6,6] distance) => (float[N,6,7] y) {{ {Q3}
        r = Gather<axis=0>(table,distance)  bias = Transpose<perm=[2,0,1]>(r)
        o = Attention<q_num_heads=4,kv_num_heads=2>(q,k,v,bias)  y = MatMul(o,wo) }}""",
        {**WEIGHTS, "wk": (12, 6), "wv": (12, 6), "table": (9, 4)},
        (2,),
        opset=23,
    ),
    "operator_cache": Toy(
        f"""g (float[N,6,12] x, float[N,4,2,3] pk, float[N,4,2,3] pv)
        => (float[N,6,7] y, float[N,4,8,3] nk, float[N,4,8,3] nv) {{ {Q3}
        o, nk, nv = Attention<q_num_heads=4,kv_num_heads=4>(q,k,v,"",pk,pv)  y = MatMul(o,wo) }}""".replace('""', ""),
        WEIGHTS,
        (),
        stopped=("graph input 'p",) * 3 + ("graph output 'y'",),
        opset=23,
    ),
    "operator_cache_shown": Toy(
        f"""g (float[N,6,12] x) => (float[N,6,7] y, float[N,4,6,3] nk) {{ {Q3}
        o, nk = Attention<q_num_heads=4,kv_num_heads=4>(q,k,v)  y = MatMul(o,wo) }}""",
        WEIGHTS,
        (),
        stopped=("graph output 'nk'", "graph output 'y'"),
        opset=23,
    ),
    "rotary_flat": Toy(
        f"""g (float[N,6,12] x, int64[N,6] places) => (float[N,6,7] y) {{ {Q3}
        qr = RotaryEmbedding<num_heads=3>(q,cos,sin,places)  kr = RotaryEmbedding<num_heads=3>(k,cos,sin,places)
        o = Attention<q_num_heads=3,kv_num_heads=3>(qr,kr,v)  y = MatMul(o,wo) }}""",
        {**WEIGHTS, "cos": COSINES[:, :2], "sin": SINES[:, :2]},
        (3,),
        opset=23,
    ),
    "rotary_heads": Toy(
        f"""g (float[N,6,12] x, int64[N,6] places) => (float[N,6,7] y) {{
        {to_rotate("q")}  {to_rotate("k")}  {project("v", "three")}
        q = RotaryEmbedding(qh,cos,sin,places)  k = RotaryEmbedding(kh,cos,sin,places)
        o = Attention(q,k,v)  {OUT} }}""",
        {**BASE, **TURNS, "cos": COSINES[:, :2], "sin": SINES[:, :2]},
        (3,),
        opset=23,
    ),
    # nothing compares the rotated channels: they are turned in pairs all the same
    "rotary_single": Toy(
        """g (float[N,6,12] x, int64[N,6] places) => (float[N,6,7] y) {
        q = MatMul(x,wq)  r = RotaryEmbedding<num_heads=1>(q,cos,sin,places)  y = MatMul(r,wo) }""",
        {"wq": (12, 4), "cos": COSINES[:, :2], "sin": SINES[:, :2], "wo": (4, 7)},
        (),
        stopped=("it turns channels in pairs", "graph output 'y'"),
        opset=23,
    ),
    "foreign_separate": toy(
        Q3,
        "o = com.microsoft.MultiHeadAttention<num_heads=4>(q,k,v,bias)  y = MatMul(o,wo)",
        more={"bias": (36,)},
        foreign=True,
    ),
    "foreign_rotary": Toy(
        f"""g (float[N,6,12] x, int64[N,6] places) => (float[N,6,7] y) {{ {Q3}
        qr = com.microsoft.RotaryEmbedding<num_heads=3>(q,places,cos,sin)
        kr = com.microsoft.RotaryEmbedding(k,places,cos,sin)
        o = com.microsoft.MultiHeadAttention<num_heads=3>(qr,kr,v)  y = MatMul(o,wo) }}""",
        {**WEIGHTS, "cos": COSINES[:, :2], "sin": SINES[:, :2]},
        (3,),
        foreign=True,
    ),
    # keys and values that come in heads
    "foreign_heads": toy(
        *(project("k"), project("v"), "q = MatMul(x,wq)"),
        "o = com.microsoft.MultiHeadAttention<num_heads=4>(q,k,v)  y = MatMul(o,wo)",
        foreign=True,
    ),
    # its caches are graph inputs and outputs: key-value heads stay, of their two query heads each may lose one
    "foreign_shared": Toy(
        """g (float[N,1,12] x, float[N,2,5,8] pk, float[N,2,5,8] pv, int32[N] lengths)
        => (float[N,1,7] y, float[N,2,6,8] nk, float[N,2,6,8] nv) { q = MatMul(x,wq)  k = MatMul(x,wk)  v = MatMul(x,wv)
        o, nk, nv = com.microsoft.GroupQueryAttention<num_heads=4,kv_num_heads=2>(q,k,v,pk,pv,lengths,total)
        y = MatMul(o,wo) }""",
        {"wq": (12, 32), "wk": (12, 16), "wv": (12, 16), "wo": (32, 7), "total": TOTAL},
        (2,),
        stopped=("graph input 'pk'", "graph input 'pv'", "graph output 'y'"),
        foreign=True,
    ),
    "foreign_shared_alone": Toy(
        """g (float[N,6,12] x, int32[N] lengths) => (float[N,6,7] y) {
        q = MatMul(x,wq)  k = MatMul(x,wk)  v = MatMul(x,wv)
        o, nk, nv = com.microsoft.GroupQueryAttention<num_heads=4,kv_num_heads=2>(q,k,v,"","",lengths,total)
        y = MatMul(o,wo) }""".replace('""', ""),
        {"wq": (12, 32), "wk": (12, 16), "wv": (12, 16), "wo": (32, 7), "total": TOTAL},
        (2,),
        foreign=True,
    ),
    "foreign_shared_packed": Toy(
        """g (float[N,6,12] x, int32[N] lengths) => (float[N,6,7] y) {
        f = MatMul(x,w)
        o, nk, nv = com.microsoft.GroupQueryAttention<num_heads=4,kv_num_heads=2>(f,"","","","",lengths,total)
        y = MatMul(o,wo) }""".replace('""', ""),
        {"w": (12, 64), "wo": (32, 7), "total": TOTAL},
        (2,),
        foreign=True,
    ),
}
"""Operators of attention, of ONNX and of com.microsoft."""

MODELS = FORMS | EINSUMS | LAYERS | OPERATORS
