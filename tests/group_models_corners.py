"""Small models, as ONNX text, in which channels meet something unusual: positions, steps, pixels, constants."""

from __future__ import annotations

import numpy as np
from toys import IMAGE, Toy

LOW, HIGH = np.array(0, np.float32), np.array(3, np.float32)
LOOKS = "it looks up every one of its channels"
OUT = "graph output 'y'"

CORNERS = {
    # every channel of h is a position in a table; h is read by a layer as well
    "looked_up_by_channels": Toy(
        """g (float[N,6] x) => (float[N,5] y) {
        h = MatMul(x,w1)  r = Relu(h)  c = Clip(r,low,high)  i = Cast<to=7>(c)  e = Gather(table,i)
        m = ReduceMean<keepdims=0>(e,one)  p = MatMul(m,w2)  q = MatMul(h,w3)  y = Concat<axis=1>(p,q) }""",
        {"w1": (6, 12), "low": LOW, "high": HIGH, "table": (4, 8), "one": [1], "w2": (8, 3), "w3": (12, 2)},
        (8,),
        stopped=(LOOKS, OUT, OUT),
    ),
    "picked_by_channels": Toy(
        """g (float[N,4,7] x) => (float[N,5] y) {
        h = MatMul(x,w1)  v, i = TopK<axis=1>(h,two)  d = MatMul(x,w4)  e = Gather<axis=1>(d,i)
        m = ReduceMean<keepdims=0>(e,inner)  p = MatMul(m,w2)  n = ReduceMean<keepdims=0>(h,one)  q = MatMul(n,w3)
        y = Concat<axis=1>(p,q) }""",
        {"w1": (7, 12), "two": [2], "w4": (7, 8), "inner": [1, 2, 3], "one": [1], "w2": (8, 3), "w3": (12, 2)},
        (8,),
        stopped=(LOOKS, OUT, OUT),
    ),
    # a decoder that starts from a computed state and is fed zeros
    "fed_zeros": Toy(
        """g (float[N,6] x) => (float[4,N,5] y) {
        h = MatMul(x,w1)  h0 = Unsqueeze(h,zero)  n = Shape<end=1>(x)  s = Concat<axis=0>(four,n,three)
        c = ConstantOfShape(s)  o, last, cell = LSTM<hidden_size=8>(c,w,r,b,,h0)  q = Squeeze(o,one)
        y = MatMul(q,w2) }""",
        {"w1": (6, 8), "zero": [0], "four": [4], "three": [3], "one": [1]}
        | {"w": (1, 32, 3), "r": (1, 32, 8), "b": (1, 64), "w2": (8, 5)},
        (),
        stopped=("what it reads at every step is constant", OUT),
    ),
    # the channels of the last of a free number of steps, counted from the end
    # at another length these would be other channels
    "channels_times_steps": Toy(
        """g (float[N,L,6] x) => (float[N,5] y) <float[N,M] f> {
        a = MatMul(x,w1)  f = Flatten(a)  s = Slice(f,last,end,one)  y = MatMul(s,w2) }""",
        {"w1": (6, 4), "last": [-4], "end": [2**62], "one": [1], "w2": (4, 5)},
        (),
        stopped=("beside a length that is not fixed", "graph output 'y'"),
    ),
    "channels_times_steps_looked_up": Toy(
        """g (float[N,L,6] x) => (float[N,5] y) <float[N,M] f> {
        a = MatMul(x,w1)  f = Flatten(a)  s = Gather<axis=1>(f,first)  y = MatMul(s,w2) }""",
        {"w1": (6, 4), "first": [0, 1, 2, 3], "w2": (4, 5)},
        (),
        stopped=("beside a length that is not fixed", "graph output 'y'"),
    ),
    "pixels_and_back": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  d = DepthToSpace<blocksize=2>(a)  s = SpaceToDepth<blocksize=2>(d)
        y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (12, 3, 1, 1), "w2": (4, 12, 1, 1)},
        (3,),
    ),
    # a gated unit whose halves take turns: pairs of neighbours go
    "every_other": Toy(
        """g (float[N,8] x) => (float[N,5] y) {
        a = MatMul(x,w1)  e = Slice(a,zero,end,one,two)  o = Slice(a,one,end,one,two)  s = Sigmoid(o)  m = Mul(e,s)
        y = MatMul(m,w2) }""",
        {"w1": (8, 12), "zero": [0], "one": [1], "two": [2], "end": [2**62], "w2": (6, 5)},
        (6,),
    ),
    "normalized_token_by_token": Toy(
        """g (float[N,6,7] x) => (float[N,6,4] y) {
        a = MatMul(x,w1)  b = BatchNormalization(a,g,b1,u,variance)  r = Relu(b)  c = MatMul(r,w2)
        d = InstanceNormalization(c,g,b1)  y = MatMul(d,w3) }""",
        {"w1": (7, 12), "g": (6,), "b1": (6,), "u": (6,), "variance": (6,), "w2": (12, 5), "w3": (5, 4)},
        (12,),
        stopped=("it normalizes over channels", OUT),
    ),
    # one vector repeated for every step: the steps are no channels
    "repeated_for_every_step": Toy(
        """g (float[N,1,6] x) => (float[N,7,4] y) {
        e = Expand(x,steps)  h = MatMul(e,w1)  r = Relu(h)  y = MatMul(r,w2) }""",
        {"steps": [1, 7, 1], "w1": (6, 12), "w2": (12, 4)},
        (12,),
    ),
    "repeated_for_every_pixel": Toy(
        """g (float[N,6,1] x, float[N,2,7] z) => (float[N,4,7] y) {
        e = Expand(x,steps)  j = Concat<axis=1>(e,z)  h = Conv<kernel_shape=[3],pads=[1,1]>(j,w1)  r = Relu(h)
        y = Conv<kernel_shape=[1]>(r,w2) }""",
        {"steps": [1, 1, 7], "w1": (12, 8, 3), "w2": (4, 12, 1)},
        (12,),
    ),
    # two steps of a recurrence that starts from zeros made at run time
    "starts_from_zeros": Toy(
        """g (float[N,6,5] x) => (float[N,4,5] y) {
        n = Shape<end=1>(x)  s = Concat<axis=0>(n,eight,five)  z = ConstantOfShape(s)  j = Concat<axis=1>(x,z)
        a = Conv<kernel_shape=[1]>(j,w1)  h = Tanh(a)  k = Concat<axis=1>(x,h)  b = Conv<kernel_shape=[1]>(k,w1)
        i = Tanh(b)  y = Conv<kernel_shape=[1]>(i,w2) }""",
        {"eight": [8], "five": [5], "w1": (8, 14, 1), "w2": (4, 8, 1)},
        (8,),
    ),
    # learned queries, repeated for every sample, look at what comes in
    "learned_queries": Toy(
        """g (float[N,6,10] x) => (float[N,5,4] y) {
        n = Shape<end=1>(x)  s = Concat<axis=0>(n,five,ten)  l = Expand(latent,s)
        q0 = MatMul(l,wq)  q1 = Reshape(q0,heads)  q = Transpose<perm=[0,2,1,3]>(q1)
        k0 = MatMul(x,wk)  k1 = Reshape(k0,heads)  k = Transpose<perm=[0,2,3,1]>(k1)
        v0 = MatMul(x,wv)  v1 = Reshape(v0,heads)  v = Transpose<perm=[0,2,1,3]>(v1)
        t = MatMul(q,k)  p = Softmax<axis=-1>(t)  o = MatMul(p,v)  o1 = Transpose<perm=[0,2,1,3]>(o)
        o2 = Reshape(o1,flat)  y = MatMul(o2,wo) }""",
        {"five": [5], "ten": [10], "latent": (1, 5, 10), "heads": [0, -1, 4, 3], "flat": [0, 5, 12]}
        | {"wq": (10, 12), "wk": (10, 12), "wv": (10, 12), "wo": (12, 4)},
        (4,),
    ),
}
"""By name."""
