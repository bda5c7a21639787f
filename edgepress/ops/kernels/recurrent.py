"""LSTM, GRU and RNN: torch's fused kernels where they compute the same, an explicit loop over time elsewhere.

Gates in the order of ONNX, ``.`` elementwise, ``W x`` including its bias ``Wb``, ``R h`` including ``Rb``::

    LSTM  i, o, f = f(W x + R h + P . c);  c' = f . c + i . g(Wc x + Rc h);  h' = o . h(c')      W = [i o f c]
    GRU   z, r = f(W x + R h);  n = g(Wn x + r . (Rn h));  h' = (1 - z) . n + z . h             W = [z r n]
    RNN   h' = f(W x + R h)

``o`` looks at ``c'`` through its peephole. GRU as above is ``linear_before_reset = 1``; with 0, the default,
``n = g(Wn x + Rn (r . h) + Rb)``, which torch's kernel cannot say. The loop runs that, peepholes, other activations,
``input_forget``, sequences of uneven length, and everything under ``torch.func``, for which the fused kernels have no
rules. Refused: ``clip``, activations with parameters, empty sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from edgepress.ops.kernels.call import Call, Host, Kernel, alike, integers, require, transformed

Activation = Callable[[torch.Tensor], torch.Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": F.softsign,
    "softplus": lambda x: F.softplus(x, threshold=40.0),
    "hardsigmoid": lambda x: (x * 0.2 + 0.5).clamp(0.0, 1.0),
    "elu": F.elu,
    "leakyrelu": lambda x: F.leaky_relu(x, 0.01),
}
"""Activations by their lower-case names, with the parameters they have by default."""

DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
TORCH_ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""Which gate of ONNX stands at each place of torch's order (LSTM i f g o, GRU r z n)."""


@dataclass(frozen=True)
class Recurrence:
    """One recurrent node with time in front: data ``[T, N, I]``, states ``[D, N, H]``, weights per direction."""

    kind: str
    x: torch.Tensor
    w: torch.Tensor
    r: torch.Tensor
    b: torch.Tensor
    lengths: torch.Tensor | None
    states: tuple[torch.Tensor, ...]
    peepholes: torch.Tensor | None
    activations: tuple[str, ...]
    call: Call

    @property
    def hidden(self) -> int:
        """Hidden units."""
        return self.r.shape[-1]

    @property
    def reverse(self) -> tuple[bool, ...]:
        """Per direction whether it runs from the end."""
        return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[
            self.call.get("direction", "forward")
        ]


def lstm(
    call: Call,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None = None,
    lengths: Host | None = None,
    h: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    p: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """Data ``[T, N, I]``, ``W [D, 4H, I]``, ``R [D, 4H, H]``, ``B [D, 8H]``, states ``[D, N, H]``, ``P [D, 3H]``.

    Outputs Y ``[T, D, N, H]``, Y_h and Y_c ``[D, N, H]``; with ``layout`` 1 the axis N comes first everywhere.
    """
    return _run(call, "LSTM", (x, w, r, b), lengths, (h, c), p)


def gru(
    call: Call,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None = None,
    lengths: Host | None = None,
    h: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """As :func:`lstm` with three gates and no cell: ``W [D, 3H, I]``, ``R [D, 3H, H]``, ``B [D, 6H]``."""
    return _run(call, "GRU", (x, w, r, b), lengths, (h,), None)


def rnn(
    call: Call,
    x: torch.Tensor,
    w: torch.Tensor,
    r: torch.Tensor,
    b: torch.Tensor | None = None,
    lengths: Host | None = None,
    h: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    """As :func:`gru` with one gate: ``W [D, H, I]``, ``R [D, H, H]``, ``B [D, 2H]``."""
    return _run(call, "RNN", (x, w, r, b), lengths, (h,), None)


def _run(
    call: Call,
    kind: str,
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None],
    lengths: Host | None,
    states: tuple[torch.Tensor | None, ...],
    peepholes: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    node = _read(call, kind, given, lengths, states, peepholes)
    y, *last = _fused(node) if _fusible(node) else _loops(node)
    if call.get("layout", 0):
        y, last = y.permute(2, 0, 1, 3), [state.transpose(0, 1) for state in last]
    return (y, *last)[: call.outputs]


def _read(
    call: Call,
    kind: str,
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None],
    lengths: Host | None,
    states: tuple[torch.Tensor | None, ...],
    peepholes: torch.Tensor | None,
) -> Recurrence:
    x, w, r, b = given
    alike(*(tensor for tensor in (*given, *states, peepholes) if tensor is not None))
    direction = call.get("direction", "forward")
    require(direction in ("forward", "reverse", "bidirectional"), f"direction {direction!r}")
    directions, hidden = w.shape[0], r.shape[-1]
    require(directions == 1 + (direction == "bidirectional"), f"{direction} with weights of {directions} directions")
    require(int(call.get("hidden_size", hidden)) == hidden, f"hidden_size unlike the weights' {hidden}")
    require(not call.get("clip", 0), "clip, which onnxruntime and the specification apply at different places")
    if call.get("layout", 0):
        x, states = x.transpose(0, 1), tuple(None if state is None else state.transpose(0, 1) for state in states)
    zeros = x.new_zeros(directions, x.shape[1], hidden)
    begin = tuple(zeros if state is None else state for state in states)
    b = x.new_zeros(directions, 2 * GATES[kind] * hidden) if b is None else b
    valid = _lengths(lengths, x.shape[0], x.device)
    return Recurrence(kind, x, w, r, b, valid, begin, peepholes, _activations(call, kind, directions), call)


def _lengths(lengths: Host | None, steps: int, device: torch.device) -> torch.Tensor | None:
    """Valid steps per sample; None when every sample has all of them."""
    counts = [steps] if lengths is None else integers(lengths)
    require(all(1 <= count <= steps for count in counts), f"sequence_lens {counts} for {steps} steps")
    return None if set(counts) == {steps} else torch.tensor(counts, device=device)


def _activations(call: Call, kind: str, directions: int) -> tuple[str, ...]:
    stated = tuple(str(name).lower() for name in call.get("activations", ()))
    names = stated or DEFAULTS[kind] * directions
    require(len(names) == len(DEFAULTS[kind]) * directions, f"{len(names)} activations for {kind}")
    unknown = sorted(set(names) - ACTIVATIONS.keys())
    require(not unknown, f"the activation {', '.join(unknown)}")
    tuned = "activation_alpha" in call.attributes or "activation_beta" in call.attributes
    require(not tuned, "activations with parameters of their own")
    return names


# --- fused ---------------------------------------------------------------------------------------


def _fusible(node: Recurrence) -> bool:
    """Torch's kernel computes this node, here and now."""
    plain = node.activations == DEFAULTS[node.kind] * len(node.reverse)
    other = node.kind == "RNN" and set(node.activations) == {"relu"}
    whole = node.lengths is None and node.peepholes is None and not node.call.get("input_forget", 0)
    linear = node.kind != "GRU" or bool(node.call.get("linear_before_reset", 0))
    return (plain or other) and whole and linear and node.x.shape[0] > 0 and not transformed()


def _fused(node: Recurrence) -> tuple[torch.Tensor, ...]:
    backwards = node.reverse == (True,)
    x = node.x.flip(0) if backwards else node.x
    weights = [_reordered(node, part) for d in range(len(node.reverse)) for part in _parts(node, d)]
    settings = (weights, True, 1, 0.0, False, len(node.reverse) == 2, False)
    if node.kind == "LSTM":
        y, *last = torch.lstm(x, list(node.states), *settings)
    elif node.kind == "GRU":
        y, *last = torch.gru(x, node.states[0], *settings)
    else:
        run = torch.rnn_relu if node.activations[0] == "relu" else torch.rnn_tanh
        y, *last = run(x, node.states[0], *settings)
    y = y.flip(0) if backwards else y
    return (y.reshape(*y.shape[:2], len(node.reverse), node.hidden).transpose(1, 2), *last)


def _parts(node: Recurrence, direction: int) -> tuple[torch.Tensor, ...]:
    """W, R, Wb and Rb of one direction."""
    return node.w[direction], node.r[direction], *node.b[direction].chunk(2)


def _reordered(node: Recurrence, gates: torch.Tensor) -> torch.Tensor:
    parts = torch.split(gates, node.hidden)
    return torch.cat([parts[place] for place in TORCH_ORDER[node.kind]])


# --- step by step --------------------------------------------------------------------------------


def _loops(node: Recurrence) -> tuple[torch.Tensor, ...]:
    """The directions one after the other, each a loop over time."""
    made = [_loop(node, direction, backwards) for direction, backwards in enumerate(node.reverse)]
    y, *last = zip(*made, strict=True)
    return (torch.stack(y, 1), *(torch.stack(state) for state in last))


def _loop(node: Recurrence, direction: int, backwards: bool) -> tuple[torch.Tensor, ...]:
    w, r, wb, rb = _parts(node, direction)
    peepholes = None if node.peepholes is None else torch.split(node.peepholes[direction], node.hidden)
    count = len(DEFAULTS[node.kind])
    names = node.activations[direction * count : (direction + 1) * count]
    step = _Step(node, r, rb, peepholes, tuple(ACTIVATIONS[name] for name in names))
    x = _turned(node.x, node.lengths) if backwards else node.x
    outputs, states = [], tuple(state[direction] for state in node.states)
    for at, given in enumerate(F.linear(x, w, wb)):
        new = step(given, *states)
        if node.lengths is None:
            outputs.append(new[0])
            states = new
            continue
        valid = (at < node.lengths).unsqueeze(-1)
        outputs.append(torch.where(valid, new[0], torch.zeros_like(new[0])))
        states = tuple(torch.where(valid, after, before) for after, before in zip(new, states, strict=True))
    y = torch.stack(outputs) if outputs else node.x.new_zeros(0, *states[0].shape)
    return (_turned(y, node.lengths) if backwards else y, *states)


def _turned(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """The valid steps of each sample in reverse; what follows them stays."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    source = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(0, source.unsqueeze(-1).expand(x.shape))


@dataclass(frozen=True)
class _Step:
    """One step in time: from ``W x + Wb`` of all gates and the states to the new states."""

    node: Recurrence
    r: torch.Tensor
    rb: torch.Tensor
    peepholes: tuple[torch.Tensor, ...] | None
    functions: tuple[Activation, ...]

    def __call__(self, given: torch.Tensor, *states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.node.kind == "LSTM":
            return self._lstm(given, *states)
        return self._gru(given, *states) if self.node.kind == "GRU" else self._rnn(given, *states)

    def _rnn(self, given: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.functions[0](given + F.linear(h, self.r, self.rb)),)

    def _gru(self, given: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        both = [2 * self.node.hidden, self.node.hidden]
        gates, new = torch.split(given, both, -1)
        (r, rn), (rb, rbn) = torch.split(self.r, both), torch.split(self.rb, both)
        z, reset = self.functions[0](gates + F.linear(h, r, rb)).chunk(2, -1)
        if self.node.call.get("linear_before_reset", 0):
            inner = reset * F.linear(h, rn, rbn)
        else:
            inner = F.linear(reset * h, rn, rbn)
        return ((1 - z) * self.functions[1](new + inner) + z * h,)

    def _lstm(self, given: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        i, o, f, new = (given + F.linear(h, self.r, self.rb)).chunk(4, -1)
        gate, inner, outer = self.functions
        i, f = (gate(value) for value in self._peeped((i, f), c, (0, 2)))
        f = 1 - i if self.node.call.get("input_forget", 0) else f
        c = f * c + i * inner(new)
        (o,) = self._peeped((o,), c, (1,))
        return gate(o) * outer(c), c

    def _peeped(
        self, gates: tuple[torch.Tensor, ...], c: torch.Tensor, places: tuple[int, ...]
    ) -> Iterator[torch.Tensor]:
        peepholes = self.peepholes
        return (gate if peepholes is None else gate + peepholes[at] * c for gate, at in zip(gates, places, strict=True))


KERNELS: dict[str, Kernel] = {"lstm": lstm, "gru": gru, "rnn": rnn}
