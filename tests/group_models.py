"""Small models, as ONNX text, for the tests of channel groups and surgery."""

from __future__ import annotations

from group_models_cnn import CNN
from group_models_corners import CORNERS
from toys import IMAGE, Toy, feed

__all__ = ["IMAGE", "TOYS", "Toy", "feed"]

MORE = CNN | CORNERS

TOYS = {
    "residual": Toy(
        f"""g ({IMAGE}) => (float[N,5] y) {{
        a = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x,w1,b1)  r = Relu(a)
        i = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(r,w2,b2)  ir = Relu(i)
        b = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(ir,w3)  s = Add(b,r)
        c = Conv<kernel_shape=[1,1]>(s,w4,b4)  rc = Relu(c)
        p = GlobalAveragePool(rc)  f = Flatten(p)  y = Gemm<transB=1>(f,w5,b5) }}""",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (7, 8, 3, 3), "b2": (7,), "w3": (8, 7, 3, 3)}
        | {"w4": (6, 8, 1, 1), "b4": (6,), "w5": (5, 6), "b5": (5,)},
        (7, 6),
        shared=1,
    ),
    # l holds a0..a3 b0, r holds b1..b5: five pairs are tied by Mul, b0 meets b5 and a0 meets b1
    "concat_depthwise_split": Toy(
        f"""g ({IMAGE}) => (float[N,5] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Conv<kernel_shape=[1,1]>(x,w2)  c = Concat<axis=1>(a,b)
        d = Conv<group=10,kernel_shape=[3,3],pads=[1,1,1,1]>(c,w3,b3)  e = Relu(d)
        l, r = Split<axis=1>(e, sp)  m = Mul(l,r)  f = Flatten(m)  y = Gemm(f,w4,b4) }}""",
        {"w1": (4, 3, 1, 1), "w2": (6, 3, 1, 1), "w3": (10, 1, 3, 3), "b3": (10,), "sp": [5, 5]}
        | {"w4": (5 * 64, 5), "b4": (5,)},
        (4,),
        stopped=("a single channel", "graph output 'y'"),
    ),
    "squeeze_excite": Toy(
        f"""g ({IMAGE}) => (float[N,5,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = GlobalAveragePool(a)  q = Conv<kernel_shape=[1,1]>(p,w2)
        q2 = Relu(q)  u = Conv<kernel_shape=[1,1]>(q2,w3)  g1 = HardSigmoid(u)  m = Mul(a,g1)
        y = Conv<kernel_shape=[1,1]>(m,w4) }}""",
        {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1), "w3": (8, 4, 1, 1), "w4": (5, 8, 1, 1)},
        (8, 4),
    ),
    # [2, 4] -> transpose -> [4, 2]: the box rule ties the two blocks, four channels of two positions are left
    "channel_shuffle": Toy(
        """g (float[N,3,4,4] x) => (float[N,5,4,4] y) {
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Reshape(a,s5)  c = Transpose<perm=[0,2,1,3,4]>(b)  d = Reshape(c,s4)
        y = Conv<kernel_shape=[1,1]>(d,w2) }""",
        {"w1": (8, 3, 1, 1), "s5": [-1, 2, 4, 4, 4], "s4": [0, 8, 4, -1], "w2": (5, 8, 1, 1)},
        (4,),
    ),
    "grouped": Toy(
        """g (float[N,3,4,4] x) => (float[N,5,4,4] y) {
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Conv<group=2,kernel_shape=[1,1]>(a,w2,b2)  r = Relu(b)
        y = Conv<kernel_shape=[1,1]>(r,w3) }""",
        {"w1": (8, 3, 1, 1), "w2": (12, 4, 1, 1), "b2": (12,), "w3": (5, 12, 1, 1)},
        (4, 6),
    ),
    "flatten_chain": Toy(
        f"""g ({IMAGE}) => (float[N,5] y) {{
        a = Conv<kernel_shape=[3,3]>(x,w1,b1)  p = MaxPool<kernel_shape=[2,2],strides=[2,2]>(a)
        f = Flatten(p)  h = Gemm<transB=1>(f,w2,b2)  r = Relu(h)  y = Gemm(r,w3,b3) }}""",
        {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (7, 54), "b2": (7,), "w3": (7, 5), "b3": (1, 5)},
        (6, 7),
    ),
    "normalized": Toy(
        f"""g ({IMAGE}) => (float[N,5] y) {{
        a = Conv<kernel_shape=[3,3]>(x,w1)  n = BatchNormalization(a,g,b,u,variance)  r = Relu(n)
        c = Conv<kernel_shape=[1,1]>(r,w2)  l = LeakyRelu(c)  q = PRelu(l,slope)  k = Clip(q,low)
        p = AveragePool<kernel_shape=[2,2]>(k)  m = ReduceMean<keepdims=0>(p,axes)  y = MatMul(m,w3) }}""",
        {"w1": (6, 3, 3, 3), "g": (6,), "b": (6,), "u": (6,), "variance": (6,), "w2": (7, 6, 1, 1), "slope": (7, 1, 1)}
        | {"low": (), "axes": [2, 3], "w3": (7, 5)},
        (6, 7),
    ),
    "mlp": Toy(
        """g (float[N,6] x) => (float[N,5] y) {
        a = MatMul(x,w1)  b = Add(a,b1)  r = Relu(b)  c = Gemm<transB=1>(r,w2)  d = Add(b2,c)  t = Tanh(d)
        e = Gemm(t,w3,b3)  y = Mul(e,s) }""",
        {"w1": (6, 8), "b1": (8,), "w2": (7, 8), "b2": (1, 7), "w3": (7, 5), "b3": (1,), "s": ()},
        (8, 7),
    ),
    "gemm_of_a_transposed_input": Toy(
        """g (float[N,6] x) => (float[N,5] y) {
        a = Gemm(x,w1,b1)  t = Transpose<perm=[1,0]>(a)  r = Relu(t)  y = Gemm<transA=1,transB=1>(r,w2) }""",
        {"w1": (6, 8), "b1": (8,), "w2": (5, 8)},
        (8,),
    ),
    "left_matmul": Toy(
        """g (float[N,6,4] x) => (float[N,5,4] y) {
        a = MatMul(w1,x)  b = Add(a,b1)  r = Relu(b)  y = MatMul(w2,r) }""",
        {"w1": (8, 6), "b1": (8, 1), "w2": (5, 8)},
        (8,),
    ),
    # w2 is used twice: its input channels and its output channels are the same for both uses
    "shared_weights": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Conv<kernel_shape=[1,1]>(x,w0)
        c = Conv<kernel_shape=[1,1]>(a,w2)  d = Conv<kernel_shape=[1,1]>(b,w2)
        e = Concat<axis=1>(c,d)  y = Conv<kernel_shape=[1,1]>(e,w3) }}""",
        {"w0": (6, 3, 1, 1), "w1": (6, 3, 1, 1), "w2": (5, 6, 1, 1), "w3": (4, 10, 1, 1)},
        (6, 5),
    ),
    "shared_with_a_wall": Toy(
        f"""g ({IMAGE}) => (float[N,5,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1,v)  z = Softplus(v)  s = ReduceSum<keepdims=0>(z)  m = Mul(a,s)
        y = Conv<kernel_shape=[1,1]>(m,w2) }}""",
        {"w1": (6, 3, 1, 1), "v": (6,), "w2": (5, 6, 1, 1)},
        (),
        stopped=("shares the constant 'v'", "graph output 'y'"),
    ),
    "pad_channels": Toy(
        f"""g ({IMAGE}) => (float[N,4,4,4] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Slice(a,from,to,over,step)  p = Pad(s,pads)
        b = Conv<kernel_shape=[1,1],strides=[2,2]>(a,w2)  c = Add(b,p)  y = Conv<kernel_shape=[1,1]>(c,w3) }}""",
        {"w1": (6, 3, 1, 1), "from": [0, 0], "to": [9, 2**62], "over": [2, 3], "step": [2, 2]}
        | {"pads": [0, 1, 0, 0, 0, 1, 0, 0], "w2": (8, 6, 1, 1), "w3": (4, 8, 1, 1)},
        (),
        shared=1,
        stopped=("padding on the channel axis", "graph output 'y'"),
    ),
    "pad_space": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = Pad(a,pads,value)  y = Conv<kernel_shape=[3,3]>(p,w2) }}""",
        {"w1": (6, 3, 1, 1), "pads": [0, 0, 1, 1, 0, 0, 1, 1], "value": (), "w2": (4, 6, 3, 3)},
        (6,),
    ),
    "unknown_operator": Toy(
        f"""g ({IMAGE}) => (float[N,4,1,1] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = GlobalLpPool(a)  c = Conv<kernel_shape=[1,1]>(b,w2)
        y = Conv<kernel_shape=[1,1]>(c,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (7, 6, 1, 1), "w3": (4, 7, 1, 1)},
        (7,),
        stopped=("'n_b': unknown operator GlobalLpPool", "graph output 'y'"),
    ),
    "attention": Toy(
        """g (float[N,6,12] x) => (float[N,6,4] y) {
        q = MatMul(x,wq)  k = MatMul(x,wk)  v = MatMul(x,wv)  kt = Transpose<perm=[0,2,1]>(k)
        s = MatMul(q,kt)  p = Softmax<axis=-1>(s)  o = MatMul(p,v)  h = MatMul(o,w1)  y = MatMul(h,w2) }""",
        {"wq": (12, 5), "wk": (12, 5), "wv": (12, 5), "w1": (5, 7), "w2": (7, 4)},
        (5, 7),
        stopped=("a product of two computed",) * 2 + ("graph output 'y'",),
    ),
    "softmax_over_channels": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Softmax<axis=1>(a)  c = Conv<kernel_shape=[1,1]>(s,w2)
        t = Softmax<axis=-1>(c)  y = Conv<kernel_shape=[1,1]>(t,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (7, 6, 1, 1), "w3": (4, 7, 1, 1)},
        (7,),
        stopped=("'n_s': it normalizes over channels", "graph output 'y'"),
    ),
    # the mask's one channel stays; the six it is spread over may go
    "spatial_mask": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  m = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x,w2)  s = Sigmoid(m)
        b = Mul(a,s)  y = Conv<kernel_shape=[1,1]>(b,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (1, 3, 3, 3), "w3": (4, 6, 1, 1)},
        (6,),
        stopped=("spreads one channel over many", "graph output 'y'"),
    ),
    "slices": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  l = Slice(a,zero,five,one)  r = Slice(a,minus,end,one)
        c = Conv<kernel_shape=[1,1]>(l,w2)  d = Conv<kernel_shape=[1,1]>(r,w3)  e = Concat<axis=1>(c,d)
        y = Conv<kernel_shape=[1,1]>(e,w4) }}""",
        {"w1": (9, 3, 1, 1), "zero": [0], "five": [5], "minus": [-4], "end": [2**62], "one": [1]}
        | {"w2": (6, 5, 1, 1), "w3": (7, 4, 1, 1), "w4": (4, 13, 1, 1)},
        (5, 4, 6, 7),
    ),
    # what one step passes over goes together
    "strided_slice": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Slice(a,zero,six,one,two)  y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (6, 3, 1, 1), "zero": [0], "six": [6], "one": [1], "two": [2], "w2": (4, 3, 1, 1)},
        (3,),
    ),
    "gather": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Gather<axis=1>(a,order)  y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (6, 3, 1, 1), "order": [5, 0, -2, 2, 1, 3], "w2": (4, 6, 1, 1)},
        (6,),
    ),
    "depth_to_space": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = DepthToSpace<blocksize=2>(a)  r = Relu(s)
        y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (12, 3, 1, 1), "w2": (4, 3, 1, 1)},
        (3,),
    ),
    "expand_tile": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = GlobalMaxPool(a)  e = Expand(p,big)  t = Tile(e,twice)
        y = Conv<kernel_shape=[1,1]>(t,w2) }}""",
        {"w1": (6, 3, 1, 1), "big": [1, 6, 8, 8], "twice": [1, 2, 1, 1], "w2": (4, 12, 1, 1)},
        (6,),
    ),
    "image_from_vector": Toy(
        """g (float[N,6] x) => (float[N,4,4,4] y) {
        h = Gemm(x,w1,b1)  r = Relu(h)  i = Reshape(r,shape)  y = Conv<kernel_shape=[1,1]>(i,w2) }""",
        {"w1": (6, 80), "b1": (80,), "shape": [0, 5, 4, 4], "w2": (4, 5, 1, 1)},
        (5,),
    ),
    # the gate ties the sixteen pixels of a channel that the Gemm made one by one
    "gated_image_from_vector": Toy(
        """g (float[N,6] x) => (float[N,4,4,4] y) {
        h = Gemm(x,w1,b1)  i = Reshape(h,shape)  p = GlobalAveragePool(i)  g1 = Conv<kernel_shape=[1,1]>(p,w3)
        m = Mul(i,g1)  y = Conv<kernel_shape=[1,1]>(m,w2) }""",
        {"w1": (6, 80), "b1": (80,), "shape": [0, 5, 4, 4], "w3": (5, 5, 1, 1), "w2": (4, 5, 1, 1)},
        (5,),
    ),
    "depthwise_multiplier": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  d = Conv<group=5,kernel_shape=[1,1]>(a,w2,b2)
        y = Conv<kernel_shape=[1,1]>(d,w3) }}""",
        {"w1": (5, 3, 1, 1), "w2": (10, 1, 1, 1), "b2": (10,), "w3": (4, 10, 1, 1)},
        (5,),
    ),
    "one_dimensional": Toy(
        """g (float[N,3,9] x) => (float[N,9,4] y) {
        a = Conv<kernel_shape=[3],pads=[1,1]>(x,w1)  u = Unsqueeze(a,two)  s = Squeeze(u,two)
        t = Transpose<perm=[0,2,1]>(s)  b = Add(t,v)  y = MatMul(b,w2) }""",
        {"w1": (6, 3, 3), "two": [2], "v": (6,), "w2": (6, 4)},
        (6,),
    ),
    "even_split": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  l, r = Split<axis=1,num_outputs=2>(a)
        b = Conv<kernel_shape=[1,1]>(r,w2)  c = Concat<axis=1>(l,r,b)  y = Conv<kernel_shape=[1,1]>(c,w3) }}""",
        {"w1": (8, 3, 1, 1), "w2": (5, 4, 1, 1), "w3": (4, 13, 1, 1)},
        (4, 4, 5),
    ),
    # both halves occur in the same weights, but neither half may vanish whole
    "halves_rejoined": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  l, r = Split<axis=1,num_outputs=2>(a)
        q = Relu(r)  c = Concat<axis=1>(l,q)  y = Conv<kernel_shape=[1,1]>(c,w3) }}""",
        {"w1": (8, 3, 1, 1), "w3": (4, 8, 1, 1)},
        (4, 4),
    ),
    "input_joins": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Add(a,x)  y = Conv<kernel_shape=[1,1]>(b,w2) }}""",
        {"w1": (3, 3, 1, 1), "w2": (4, 3, 1, 1)},
        (),
        stopped=("join the graph input 'x'", "graph output 'y'"),
    ),
    "dead_end": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Relu(a)  y = Conv<kernel_shape=[1,1]>(x,w2) }}""",
        {"w1": (6, 3, 1, 1), "w2": (4, 3, 1, 1)},
        (),
        stopped=("no layer consumes", "graph output 'y'"),
    ),
    "computed_weights": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  w = Neg(w2)  y = Conv<kernel_shape=[1,1]>(a,w) }}""",
        {"w1": (6, 3, 1, 1), "w2": (4, 6, 1, 1)},
        (),
        stopped=("weights are computed",),
    ),
    # rows of a constant below the map go along with its channels
    "joined_with_constants": Toy(
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
        a = Conv<kernel_shape=[1,1]>(x,w1)  c = Concat<axis=2>(a,k)  s = Slice(c,zero,eight,two)
        b = Conv<kernel_shape=[1,1]>(s,w2)  d = Add(b,map)  y = Conv<kernel_shape=[1,1]>(d,w3) }""",
        {"w1": (6, 3, 1, 1), "k": (1, 6, 1, 8), "zero": [0], "eight": [8], "two": [2], "w2": (7, 6, 1, 1)}
        | {"map": (7, 8, 8), "w3": (4, 7, 1, 1)},
        (6, 7),
    ),
} | MORE
"""By name. All have a symbolic batch but ``joined_with_constants``."""
