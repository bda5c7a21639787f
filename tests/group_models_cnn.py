"""Toy models of what convolutional and recurrent networks are made of."""

from __future__ import annotations

import numpy as np
from toys import IMAGE, Toy


def single(*values: float) -> np.ndarray:
    """Float constants."""
    return np.array(values, np.float32)


WHY = "so removing one would change the rest"

CONVOLUTIONS = {
    "transposed": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  u = ConvTranspose<kernel_shape=[2,2],strides=[2,2]>(a,w2,b2)  r = Relu(u)
        y = Conv<kernel_shape=[1,1]>(r,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (6, 7, 2, 2), "b2": (7,), "w3": (4, 7, 1, 1)},
        (6, 7),
    ),
    "transposed_grouped": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  u = ConvTranspose<group=2,kernel_shape=[1,1]>(a,w2,b2)  r = Relu(u)
        y = Conv<kernel_shape=[1,1]>(r,w3) }}""",
        {"w1": (8, 3, 1, 1), "w2": (8, 5, 1, 1), "b2": (10,), "w3": (4, 10, 1, 1)},
        (4, 5),
    ),
    # four blocks of two channels: whole blocks go
    "transposed_blocks": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  u = ConvTranspose<group=4,kernel_shape=[1,1]>(a,w2,b2)  r = Relu(u)
        y = Conv<kernel_shape=[1,1]>(r,w3) }}""",
        {"w1": (8, 3, 1, 1), "w2": (8, 3, 1, 1), "b2": (12,), "w3": (4, 12, 1, 1)},
        (4,),
    ),
    "transposed_depthwise": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  u = ConvTranspose<group=6,kernel_shape=[2,2],strides=[2,2]>(a,w2)
        y = Conv<kernel_shape=[1,1]>(u,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (6, 1, 2, 2), "w3": (4, 6, 1, 1)},
        (6,),
    ),
    "transposed_computed_weights": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  m = ReduceMax<keepdims=0>(x)  w = Mul(w2,m)
        y = ConvTranspose<kernel_shape=[1,1]>(a,w) }}""",
        {"w1": (6, 3, 1, 1), "w2": (6, 4, 1, 1)},
        (),
        stopped=("weights are computed",),
    ),
    # ResNeXt: six blocks of two channels, each a piece that goes whole, with the three outputs of the block
    "resnext": Toy(
        f"""g ({IMAGE}) => (float[N,5,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w0,b0)
        b = Conv<kernel_shape=[1,1]>(a,w1)  d = Conv<group=6,kernel_shape=[3,3],pads=[1,1,1,1]>(b,w2,b2)
        n = BatchNormalization(d,g,h,u,variance)  r = Relu(n)  e = Conv<kernel_shape=[1,1]>(r,w3)  s = Add(a,e)
        y = Conv<kernel_shape=[1,1]>(s,w4) }}""",
        {"w0": (8, 3, 1, 1), "b0": (8,), "w1": (12, 8, 1, 1), "w2": (18, 2, 3, 3), "b2": (18,), "g": (18,), "h": (18,)}
        | {"u": (18,), "variance": (18,), "w3": (8, 18, 1, 1), "w4": (5, 8, 1, 1)},
        (6,),
        shared=1,
    ),
    # ShuffleNet: grouped, shuffled, depthwise, grouped again, joined with the input by Concat
    "shufflenet": Toy(
        """g (float[N,3,4,4] x) => (float[N,5,4,4] y) {
        z = Conv<kernel_shape=[1,1]>(x,w0)
        a = Conv<group=2,kernel_shape=[1,1]>(z,w1,b1)  r = Relu(a)
        b = Reshape(r,s5)  c = Transpose<perm=[0,2,1,3,4]>(b)  d = Reshape(c,s4)
        e = Conv<group=12,kernel_shape=[3,3],pads=[1,1,1,1]>(d,w2)  f = Conv<group=2,kernel_shape=[1,1]>(e,w3)
        j = Concat<axis=1>(z,f)  y = Conv<kernel_shape=[1,1]>(j,w4) }""",
        {"w0": (8, 3, 1, 1), "w1": (12, 4, 1, 1), "b1": (12,), "s5": [0, 2, 6, 4, 4], "s4": [0, -1, 4, 4]}
        | {"w2": (12, 1, 3, 3), "w3": (10, 6, 1, 1), "w4": (5, 18, 1, 1)},
        (4, 3, 5),
    ),
    "densenet": Toy(
        f"""g ({IMAGE}) => (float[N,4,4,4] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w0)
        n1 = BatchNormalization(a,g1,h1,u1,variance1)  r1 = Relu(n1)  b1 = Conv<kernel_shape=[1,1]>(r1,w1)
        k1 = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(b1,w2)  c1 = Concat<axis=1>(a,k1)
        n2 = BatchNormalization(c1,g2,h2,u2,variance2)  r2 = Relu(n2)  k2 = Conv<kernel_shape=[1,1]>(r2,w3)
        c2 = Concat<axis=1>(c1,k2)  p = AveragePool<kernel_shape=[2,2],strides=[2,2]>(c2)
        y = Conv<kernel_shape=[1,1]>(p,w4) }}""",
        {"w0": (6, 3, 1, 1), "w1": (8, 6, 1, 1), "w2": (4, 8, 3, 3), "w3": (4, 10, 1, 1), "w4": (4, 14, 1, 1)}
        | {"g1": (6,), "h1": (6,), "u1": (6,), "variance1": (6,)}
        | {"g2": (10,), "h2": (10,), "u2": (10,), "variance2": (10,)},
        (6, 8, 4, 4),
    ),
    "inception": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w0)  b1 = Conv<kernel_shape=[1,1]>(a,w1)
        b2 = Conv<kernel_shape=[1,1]>(a,w2)  c2 = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(b2,w3)
        p = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(a)  b3 = Conv<kernel_shape=[1,1]>(p,w4)
        j = Concat<axis=-3>(b1,c2,b3)  r = Relu(j)  l = LRN<size=3>(b1)  k = Concat<axis=1>(r,l)
        y = Conv<kernel_shape=[1,1]>(k,w5) }}""",
        {"w0": (6, 3, 1, 1), "w1": (5, 6, 1, 1), "w2": (4, 6, 1, 1), "w3": (7, 4, 3, 3), "w4": (3, 6, 1, 1)}
        | {"w5": (4, 20, 1, 1)},
        (6, 4, 7, 3),
        stopped=(f"divides every channel by its neighbours, {WHY}", "graph output 'y'"),
    ),
}

SLIDING = {
    # efficient channel attention: the channels lie along the axis of a one-dimensional convolution
    f"{name}_over_channels": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = GlobalAveragePool(a)  r = Reshape(p,s3)  {text}
        q = Reshape(b,s4)  m = Mul(a,q)  y = Conv<kernel_shape=[1,1]>(m,w2) }}""",
        {"w1": (6, 3, 1, 1), "s3": [0, 1, 6], "s4": [0, 6, 1, 1], "k": (1, 1, 3), "w2": (4, 6, 1, 1)},
        (),
        stopped=("its window slides over channels", "graph output 'y'"),
    )
    for name, text in (
        ("convolution", "b = Conv<kernel_shape=[3],pads=[1,1]>(r,k)"),
        ("transposed_convolution", "b = ConvTranspose<kernel_shape=[3],pads=[1,1]>(r,k)"),
        ("pool", "b = MaxPool<kernel_shape=[3],pads=[1,1]>(r)"),
    )
}

NORMS = {
    "instance_normalized": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = InstanceNormalization(a,g,v)  c = Conv<kernel_shape=[1,1]>(b,w2)
        y = Conv<kernel_shape=[1,1]>(c,w3) }}""",
        {"w1": (6, 3, 1, 1), "g": (6,), "v": (6,), "w2": (7, 6, 1, 1), "w3": (4, 7, 1, 1)},
        (6, 7),
    ),
    "group_normalized": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = GroupNormalization<num_groups=3>(a,g,v)  s = Sigmoid(b)  m = Mul(b,s)
        y = Conv<kernel_shape=[1,1]>(m,w2) }}""",
        {"w1": (12, 3, 1, 1), "g": (12,), "v": (12,), "w2": (4, 12, 1, 1)},
        (3,),
        opset=21,
    ),
    "group_normalized_exported": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = Reshape(a,s3)  n = InstanceNormalization(b,ones,zeros)
        c = Reshape(n,s4)  m = Mul(c,g)  d = Add(m,v)  r = Relu(d)  y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (12, 3, 1, 1), "s3": [0, 3, -1], "ones": (3,), "zeros": (3,), "s4": [-1, 12, 8, 8]}
        | {"g": (12, 1, 1), "v": (12, 1, 1), "w2": (4, 12, 1, 1)},
        (3,),
    ),
    "normalized_by_one_group": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  b = GroupNormalization<num_groups=1>(a,g,v)
        y = Conv<kernel_shape=[1,1]>(b,w2) }}""",
        {"w1": (6, 3, 1, 1), "g": (6,), "v": (6,), "w2": (4, 6, 1, 1)},
        (),
        stopped=("a single channel", "graph output 'y'"),
        opset=21,
    ),
    "normalized_by_computed": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  m = ReduceMax<keepdims=0>(x)  k = Mul(g,m)  b = InstanceNormalization(a,k,v)
        y = Conv<kernel_shape=[1,1]>(b,w2) }}""",
        {"w1": (6, 3, 1, 1), "g": (6,), "v": (6,), "w2": (4, 6, 1, 1)},
        (),
        stopped=("its parameters are computed", "graph output 'y'"),
    ),
    "group_normalized_by_computed": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  m = ReduceMax<keepdims=0>(x)  k = Mul(g,m)
        b = GroupNormalization<num_groups=3>(a,k,v)
        y = Conv<kernel_shape=[1,1]>(b,w2) }}""",
        {"w1": (6, 3, 1, 1), "g": (6,), "v": (6,), "w2": (4, 6, 1, 1)},
        (),
        stopped=("its parameters are computed", "graph output 'y'"),
        opset=21,
    ),
    "old_normalization": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  n = BatchNormalization(a,g,b,u,variance)  r = Relu(n)
        y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "g": (6,), "b": (6,), "u": (6,), "variance": (6,), "w2": (4, 6, 1, 1)},
        (6,),
        opset=7,
    ),
    "normalized_per_position": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  n = BatchNormalization<spatial=0>(a,g,b,u,variance)
        y = Conv<kernel_shape=[1,1]>(n,w2) }}""",
        {"w1": (6, 3, 1, 1), "w2": (4, 6, 1, 1)}
        | {"g": (6, 8, 8), "b": (6, 8, 8), "u": (6, 8, 8), "variance": (6, 8, 8)},
        (),
        stopped=("a mean for every position", "graph output 'y'"),
        opset=7,
    ),
}

POOLED = {
    "pooled": Toy(
        f"""g ({IMAGE}) => (float[N,4,1,1] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = LpPool<kernel_shape=[2,2],p=2>(a)  q = MaxPool<kernel_shape=[2,2]>(p)
        b = Conv<kernel_shape=[1,1]>(q,w2)  m = GlobalMaxPool(b)  y = Conv<kernel_shape=[1,1]>(m,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (7, 6, 1, 1), "w3": (4, 7, 1, 1)},
        (6, 7),
    ),
    "pooled_with_positions": Toy(
        f"""g ({IMAGE}) => (float[N,4,7,7] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p, i = MaxPool<kernel_shape=[2,2]>(a)  f = CastLike(i,p)  s = Add(p,f)
        y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (6, 3, 1, 1), "w2": (4, 6, 1, 1)},
        (),
        stopped=("it also returns positions", "graph output 'y'"),
    ),
}

RESAMPLED = {
    "upsampled": Toy(
        f"""g ({IMAGE}) => (float[N,4,32,32] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Resize<mode="linear">(a,,scales)
        b = Conv<kernel_shape=[1,1]>(r,w2)  s = Resize<mode="nearest">(b,,,sizes)
        y = Conv<kernel_shape=[1,1]>(s,w3) }}""",
        {"w1": (6, 3, 1, 1), "scales": single(1, 1, 2, 2), "w2": (7, 6, 1, 1), "sizes": [1, 7, 32, 32]}
        | {"w3": (4, 7, 1, 1)},
        (6, 7),
    ),
    "upsampled_axes": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)
        s = Resize<mode="cubic",axes=[2,3],keep_aspect_ratio_policy="not_larger">(a,,,sizes)
        y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (6, 3, 1, 1), "sizes": [16, 16], "w2": (4, 6, 1, 1)},
        (6,),
    ),
    "upsampled_old": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Upsample(a,scales)  y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "scales": single(1, 1, 2, 2), "w2": (4, 6, 1, 1)},
        (6,),
        opset=9,
    ),
    "upsampled_oldest": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Upsample<scales=[1.0,1.0,2.0,2.0]>(a)
        y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "w2": (4, 6, 1, 1)},
        (6,),
        opset=7,
    ),
    "resized_ten": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Resize(a,scales)  y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "scales": single(1, 1, 2, 2), "w2": (4, 6, 1, 1)},
        (6,),
        opset=10,
    ),
    "resized_channels": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Resize(a,,scales)  y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "scales": single(1, 2, 1, 1), "w2": (4, 12, 1, 1)},
        (),
        stopped=("it resizes the axis of the channels", "graph output 'y'"),
    ),
    # same size, but not the same values: 1.1 * 6 is 6 again
    "resized_channels_a_little": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Resize(a,,scales)  y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "scales": single(1, 1.1, 1, 1), "w2": (4, 6, 1, 1)},
        (),
        stopped=("it resizes the axis of the channels", "graph output 'y'"),
    ),
    "resized_by_aspect": Toy(
        f"""g ({IMAGE}) => (float[N,4,6,6] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  r = Resize<keep_aspect_ratio_policy="not_larger",axes=[1,2,3]>(a,,,sizes)
        y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "sizes": [6, 8, 8], "w2": (4, 6, 1, 1)},
        (),
        stopped=("it resizes the axis of the channels", "graph output 'y'"),
    ),
    "cropped_channels": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)
        r = Resize<coordinate_transformation_mode="tf_crop_and_resize",mode="linear">(a,roi,,sizes)
        y = Conv<kernel_shape=[1,1]>(r,w2) }}""",
        {"w1": (6, 3, 1, 1), "roi": single(0, 0, 0, 0, 1, 1, 1, 1), "sizes": [1, 6, 8, 8], "w2": (4, 6, 1, 1)},
        (),
        stopped=("it resizes the axis of the channels", "graph output 'y'"),
    ),
    "grid_sampled": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = Conv<kernel_shape=[1,1]>(x,w2)  t = Transpose<perm=[0,2,3,1]>(p)
        s = GridSample(a,t)  y = Conv<kernel_shape=[1,1]>(s,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (2, 3, 1, 1), "w3": (4, 6, 1, 1)},
        (6,),
        stopped=("it reads positions", "graph output 'y'"),
    ),
}

MIXED = {
    "old_softmax": Toy(  # before version 13 it runs over this axis and all behind it
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Softmax(a)  c = Conv<kernel_shape=[1,1]>(s,w2)
        t = Softmax<axis=2>(c)  y = Conv<kernel_shape=[1,1]>(t,w3) }}""",
        {"w1": (6, 3, 1, 1), "w2": (7, 6, 1, 1), "w3": (4, 7, 1, 1)},
        (7,),
        stopped=(f"it normalizes over channels, {WHY}", "graph output 'y'"),
        opset=12,
    ),
    "along_pixels": Toy(
        f"""g ({IMAGE}) => (float[N,4,5,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  l = LogSoftmax<axis=2>(a)  n = LpNormalization<axis=3>(l)
        c = CumSum(n,two)  t, i = TopK<axis=-2>(c,five)  y = Conv<kernel_shape=[1,1]>(t,w2) }}""",
        {"w1": (6, 3, 1, 1), "two": np.array(2), "five": [5], "w2": (4, 6, 1, 1)},
        (6,),
    ),
    **{
        f"{name}_over_channels": Toy(
            f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
            a = Conv<kernel_shape=[1,1]>(x,w1)  {text}  y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
            {"w1": (6, 3, 1, 1), "one": np.array(1), "axes": [1], "six": [6], "w2": (4, 6, 1, 1)},
            (),
            stopped=(f"{why}, {WHY}", "graph output 'y'"),
        )
        for name, text, why in (
            ("log_softmax", "s = LogSoftmax<axis=1>(a)", "it normalizes over channels"),
            ("hardmax", "s = Hardmax<axis=1>(a)", "it looks for the largest channel"),
            ("lp_normalization", "s = LpNormalization<axis=1>(a)", "it normalizes over channels"),
            ("cum_sum", "s = CumSum(a,one)", "it adds each channel to the next"),
            ("top_k", "s, i = TopK<axis=1>(a,six)", "it looks for the largest channels"),
            ("average", "m = ReduceMean(a,axes)  s = Sub(a,m)", "it averages over channels"),
            ("sum", "m = ReduceSumSquare(a,axes)  s = Div(a,m)", "it adds up channels"),
            ("arg_max", "i = ArgMax<axis=1>(a)  m = CastLike(i,a)  s = Mul(a,m)", "it looks for the largest channel"),
            ("largest", "m = ReduceMax(a)  s = Sub(a,m)", "it takes the largest of the channels"),
        )
    },
}

ELEMENTWISE = {
    "activations": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  h = HardSwish(a)  s = Sigmoid(h)  m = Mul(h,s)
        b = Conv<kernel_shape=[1,1]>(m,w2)  l = Div(b,root)  e = Erf(l)  p = Add(e,one)  q = Mul(b,p)  r = Mul(q,half)
        c = Conv<kernel_shape=[1,1]>(r,w3)  k = Gelu(c)  o = Mish(k)  z = Clip(o,low,high)  t = Pow(z,two)
        d, u = Dropout(t)  y = Conv<kernel_shape=[1,1]>(d,w4) }}""",
        {"w1": (6, 3, 1, 1), "w2": (7, 6, 1, 1), "w3": (5, 7, 1, 1), "w4": (4, 5, 1, 1), "low": np.float32(-1)}
        | {"root": single(1.4142), "one": np.float32(1), "half": np.float32(0.5), "high": np.float32(6)}
        | {"two": np.float32(2)},
        (6, 7, 5),
        opset=22,
    ),
    "chosen": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  c = Greater(a,limits)  n = Not(c)  o = And(n,some)  b = Where(o,a,other)
        d = Where(some,b,a)  i = CastLike(c,seven)  e = Add(d,i)  f = Mean(e,k)  m = Mod<fmod=1>(f,k)
        y = Conv<kernel_shape=[1,1]>(m,w2) }}""",
        {"w1": (6, 3, 1, 1), "limits": (6, 1, 1), "some": np.array([1, 0, 1, 1, 0, 1], bool).reshape(1, 6, 1, 1)}
        | {"other": (1, 6, 8, 8), "seven": (7, 5), "k": (6, 1, 1), "w2": (4, 6, 1, 1)},
        (6,),
    ),
    "nothing_but_the_type": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  k = CastLike(v,a)  b = Mul(a,k)  y = Conv<kernel_shape=[1,1]>(b,w2) }}""",
        {"w1": (6, 3, 1, 1), "v": (6, 1, 1), "w2": (4, 6, 1, 1)},
        (),
        stopped=("nothing but the type", "graph output 'y'"),
    ),
    # one layer's neurons gated by another's: inner channels, not a stream that layers share
    "gated_by_a_twin": Toy(
        """g (float[N,6] x) => (float[N,4] y) {
        a = MatMul(x,w1)  b = MatMul(x,w2)  s = Sigmoid(a)  h = Mul(a,s)  m = Mul(h,b)  y = MatMul(m,w3) }""",
        {"w1": (6, 8), "w2": (6, 8), "w3": (8, 4)},
        (8,),
    ),
}

MOVED = {
    "pixel_shuffle_exported": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1,b1)  r = Reshape(a,s6)  t = Transpose<perm=[0,1,4,2,5,3]>(r)
        p = Reshape(t,s4)  y = Conv<kernel_shape=[1,1]>(p,w2) }}""",
        {"w1": (20, 3, 1, 1), "b1": (20,), "s6": [-1, 5, 2, 2, 8, 8], "s4": [-1, 5, 16, 16], "w2": (4, 5, 1, 1)},
        (5,),
    ),
    "depth_to_space_crd": Toy(
        f"""g ({IMAGE}) => (float[N,4,16,16] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = DepthToSpace<blocksize=2,mode="CRD">(a)
        y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (12, 3, 1, 1), "w2": (4, 3, 1, 1)},
        (3,),
    ),
    "space_to_depth": Toy(
        f"""g ({IMAGE}) => (float[N,4,4,4] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = SpaceToDepth<blocksize=2>(a)  y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (6, 3, 1, 1), "w2": (4, 24, 1, 1)},
        (6,),
    ),
    # every second channel, but not to the end: 0 and 1, 2 and 3 go together; 4, 5 and 6 alone
    "strided_slice_inside": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Slice(a,from,to,one,two)  c = Concat<axis=1>(s,a)
        y = Conv<kernel_shape=[1,1]>(c,w2) }}""",
        {"w1": (7, 3, 1, 1), "from": [0], "to": [-3], "one": [1], "two": [2], "w2": (4, 9, 1, 1)},
        (2, 3),
    ),
    "flipped": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Slice(a,last,before,one,back)  c = Conv<kernel_shape=[1,1]>(s,w2)
        f = Slice(c,five,zero,one,back)  y = Conv<kernel_shape=[1,1]>(f,w3) }}""",
        {"w1": (6, 3, 1, 1), "last": [-1], "before": [-(2**63)], "one": [1], "back": [-1], "w2": (8, 6, 1, 1)}
        | {"five": [5], "zero": [0], "w3": (4, 5, 1, 1)},
        (6, 5),
        stopped=("no layer consumes", "graph output 'y'"),
    ),
    # backwards in steps of two: 6 and 5, 4 and 3, 2 and 1 go together; 0 ends the last step, 7 lies before the first
    "backwards_by_two": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Slice(a,last,before,one,back)  y = Conv<kernel_shape=[1,1]>(s,w2) }}""",
        {"w1": (8, 3, 1, 1), "last": [-2], "before": [-100], "one": [1], "back": [-2], "w2": (4, 4, 1, 1)},
        (3,),
        stopped=("a single channel", "no layer consumes", "graph output 'y'"),
    ),
    "old_parameters": Toy(
        f"""g ({IMAGE}) => (float[N,4,4,4] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  s = Slice<starts=[2,4],ends=[9,2147483647],axes=[1,2]>(a)
        l, r = Split<axis=1,split=[3,4]>(s)  u = Unsqueeze<axes=[4]>(l)  v = Squeeze<axes=[4]>(u)
        c = Concat<axis=1>(v,r)  b = Conv<kernel_shape=[1,1]>(c,w2)
        p = Pad<pads=[0,0,0,0,0,0,0,-4]>(b)  q = Pad<pads=[0,0,1,1,0,0,1,1],mode="reflect">(p)
        y = Conv<kernel_shape=[3,3]>(q,w3) }}""",
        {"w1": (9, 3, 1, 1), "w2": (6, 7, 1, 1), "w3": (4, 6, 3, 3)},
        (3, 4, 6),
        stopped=("no layer consumes", "graph output 'y'"),
        opset=9,
    ),
    "old_split": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  l, r = Split<axis=-3>(a)  p = Pad(l,pads,zero)
        q = Relu(r)  c = Concat<axis=-3>(p,q)  y = Conv<kernel_shape=[1,1]>(c,w2) }}""",
        {"w1": (8, 3, 1, 1), "pads": [0, 0, 0, 0, 0, 0, 0, 0], "zero": np.float32(0), "w2": (4, 8, 1, 1)},
        (4, 4),
        opset=11,
    ),
    "padded_axes": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = Pad<mode="edge">(a,pads,,over)
        y = Conv<kernel_shape=[3,3]>(p,w2) }}""",
        {"w1": (6, 3, 1, 1), "pads": [1, 1, 1, 1], "over": [-2, 3], "w2": (4, 6, 3, 3)},
        (6,),
    ),
    "padded_with_copies": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  p = Pad<mode="edge">(a,pads,,over)
        y = Conv<kernel_shape=[1,1]>(p,w2) }}""",
        {"w1": (6, 3, 1, 1), "pads": [1, 0], "over": [1], "w2": (4, 7, 1, 1)},
        (),
        stopped=("pads channels with copies", "graph output 'y'"),
    ),
    "padded_with_computed": Toy(
        f"""g ({IMAGE}) => (float[N,4,10,10] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  m = ReduceMax<keepdims=0>(x)  p = Pad(a,pads,m)
        y = Conv<kernel_shape=[1,1]>(p,w2) }}""",
        {"w1": (6, 3, 1, 1), "pads": [0, 0, 1, 1, 0, 0, 1, 1], "w2": (4, 6, 1, 1)},
        (),
        stopped=("how it moves data is computed", "graph output 'y'"),
    ),
    "triangle": Toy(
        f"""g ({IMAGE}) => (float[N,4,8,8] y) {{
        a = Conv<kernel_shape=[1,1]>(x,w1)  t = Trilu<upper=0>(a,one)  y = Conv<kernel_shape=[1,1]>(t,w2) }}""",
        {"w1": (6, 3, 1, 1), "one": np.array(1), "w2": (4, 6, 1, 1)},
        (6,),
    ),
    "triangle_of_channels": Toy(
        """g (float[N,8,6] x) => (float[N,8,4] y) {
        a = MatMul(x,w1)  t = Trilu(a)  y = MatMul(t,w2) }""",
        {"w1": (6, 7), "w2": (7, 4)},
        (),
        stopped=("which channels it masks", "graph output 'y'"),
    ),
    # a mask of one channel, spread by Expand: its copies go with the channels they meet
    "expanded_mask": Toy(
        """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
        a = Conv<kernel_shape=[1,1]>(x,w1)  m = Conv<kernel_shape=[1,1]>(x,w2)  e = Expand(m,big)  b = Mul(a,e)
        y = Conv<kernel_shape=[1,1]>(b,w3) }""",
        {"w1": (6, 3, 1, 1), "w2": (1, 3, 1, 1), "big": [6, 1, 1], "w3": (4, 6, 1, 1)},
        (6,),
        stopped=("spreads one channel over many", "graph output 'y'"),
    ),
    "flattened_late": Toy(
        """g (float[N,3,4,4] x) => (float[N,16,4] y) {
        a = Conv<kernel_shape=[1,1]>(x,w1)  t = Transpose<perm=[0,2,3,1]>(a)  f = Flatten<axis=3>(t)
        r = Reshape(f,s3)  y = MatMul(r,w2) }""",
        {"w1": (6, 3, 1, 1), "s3": [-1, 16, 6], "w2": (6, 4)},
        (6,),
    ),
}

RECURRENT = {
    "lstm": Toy(
        """g (float[5,N,6] x) => (float[5,N,4] y) {
        p = MatMul(x,w0)  h, hn, cn = LSTM<hidden_size=7>(p,w,r,b,,,,peep)  s = Squeeze(h,one)  t = Tanh(s)
        y = MatMul(t,w1) }""",
        {"w0": (6, 5), "w": (1, 28, 5), "r": (1, 28, 7), "b": (1, 56), "peep": (1, 21), "one": [1], "w1": (7, 4)},
        (5, 7),
    ),
    # both directions of unit j are one channel of two columns; layers on top of each other
    "lstm_bidirectional": Toy(
        """g (float[5,1,6] x) => (float[5,1,4] y) {
        h, hn = LSTM<hidden_size=6,direction="bidirectional">(x,w,r,b,,h0,c0)  t = Transpose<perm=[0,2,1,3]>(h)
        s = Reshape(t,s3)  k = LSTM<hidden_size=5>(s,w2,r2)  q = Squeeze(k,one)  y = MatMul(q,w1) }""",
        {"w": (2, 24, 6), "r": (2, 24, 6), "b": (2, 48), "h0": (2, 1, 6), "c0": (2, 1, 6), "s3": [0, 0, 12]}
        | {"w2": (1, 20, 12), "r2": (1, 20, 5), "one": [1], "w1": (5, 4)},
        (6, 5),
    ),
    # zeros made to measure at run time: the hidden size stands in their shape
    "lstm_started": Toy(
        """g (float[5,N,6] x) => (float[5,N,4] y) {
        n = Shape<start=1,end=2>(x)  d = Concat<axis=0>(one,n,seven)  z = ConstantOfShape(d)
        h = LSTM<hidden_size=7>(x,w,r,b,,z,z)  s = Squeeze(h,one)  y = MatMul(s,w1) }""",
        {"w": (1, 28, 6), "r": (1, 28, 7), "b": (1, 56), "one": [1], "seven": [7], "w1": (7, 4)},
        (7,),
    ),
    "gru": Toy(
        """g (float[5,N,6] x) => (float[N,4] y) {
        h, hn = GRU<hidden_size=7,linear_before_reset=1>(x,w,r,b)  s = Squeeze(hn,zero)  y = Gemm(s,w1,b1) }""",
        {"w": (1, 21, 6), "r": (1, 21, 7), "b": (1, 42), "zero": [0], "w1": (7, 4), "b1": (4,)},
        (7,),
    ),
    "gru_reverse": Toy(
        """g (float[5,N,6] x) => (float[5,N,4] y) {
        h = GRU<direction="reverse",hidden_size=6>(x,w,r)  s = Squeeze(h,one)  y = MatMul(s,w1) }""",
        {"w": (1, 18, 6), "r": (1, 18, 6), "one": [1], "w1": (6, 4)},
        (6,),
    ),
    # the decoder starts from the encoder's last state: unit j of one is unit j of the other
    "encoder_decoder": Toy(
        """g (float[5,N,6] x) => (float[5,N,4] y) {
        e, state = RNN<hidden_size=6>(x,w,r,b)  h = RNN<hidden_size=6,activations=["Relu"]>(x,w2,r2,,,state)
        s = Squeeze(h,one)  y = MatMul(s,w1) }""",
        {"w": (1, 6, 6), "r": (1, 6, 6), "b": (1, 12), "w2": (1, 6, 6), "r2": (1, 6, 6), "one": [1], "w1": (6, 4)},
        (6,),
    ),
    "recurrence_from_outside": Toy(
        """g (float[5,N,6] x, float[1,N,7] h0) => (float[5,N,4] y) {
        h = RNN<hidden_size=7>(x,w,r,,,h0)  s = Squeeze(h,one)  y = MatMul(s,w1) }""",
        {"w": (1, 7, 6), "r": (1, 7, 7), "one": [1], "w1": (7, 4)},
        (),
        stopped=("graph input 'h0'", "graph output 'y'"),
    ),
    "computed_recurrence": Toy(
        """g (float[5,N,6] x) => (float[5,N,4] y) {
        a = MatMul(x,w0)  m = ReduceMax<keepdims=0>(x)  k = Mul(r,m)
        h = RNN<hidden_size=7>(a,w,k)  s = Squeeze(h,one)  y = MatMul(s,w1) }""",
        {"w0": (6, 6), "w": (1, 7, 6), "r": (1, 7, 7), "one": [1], "w1": (7, 4)},
        (),
        stopped=("weights are computed", "graph output 'y'"),
    ),
}

CNN = CONVOLUTIONS | SLIDING | NORMS | POOLED | RESAMPLED | MIXED | ELEMENTWISE | MOVED | RECURRENT
"""All of them, by name."""
