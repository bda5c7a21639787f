"""Networks over time: recurrent layers, convolutions along one axis, and both with attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.parts import ConvNorm, Input, net, sequence, signal, text
from zoo.transformers import Attention, FeedForward


@net("lstm_tagger", "legacy17", "tokens:12 rnn:16", x=text(30))
class LstmTagger(nn.Module):
    """Embedding, LSTM, a linear layer at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.rnn, self.fc = nn.Embedding(30, 12), nn.LSTM(12, 16, batch_first=True), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(self.tokens(x))[0])


@net("lstm_stack", "dynamo18", "rnn:12*2 fc1:16", x=sequence(8))
class LstmStack(nn.Module):
    """Two LSTM layers; the last step is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(12, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(self.rnn(x)[0][:, -1])))


@net("crnn", "legacy15", "a.conv:8 b.conv:12 rnn:12", x=Input((1, 16, 24)))
class Crnn(nn.Module):
    """Convolutions, columns as time, a bidirectional LSTM, CTC scores."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = ConvNorm(1, 8), ConvNorm(8, 12)
        self.rnn, self.fc = nn.LSTM(48, 12, bidirectional=True), nn.Linear(24, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.b(F.max_pool2d(self.a(x), 2)), (2, 1))
        return self.fc(self.rnn(x.flatten(1, 2).permute(2, 0, 1))[0]).log_softmax(-1)


@net("crnn_mean", "legacy20", "a.conv:8 b.conv:12 rnn:12 fc1:16", x=Input((1, 16, 24)))
class CrnnMean(nn.Module):
    """The same with the height averaged away and a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = ConvNorm(1, 8, stride=2), ConvNorm(8, 12)
        self.rnn = nn.GRU(12, 12, bidirectional=True, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(24, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(self.b(self.a(x)).mean(2).transpose(1, 2))[0]
        return self.fc2(torch.relu(self.fc1(x)))


@net("gru_denoiser", "legacy18", "a:16 rnn1:16 rnn2:20 gains:24", x=sequence(10))
class GruDenoiser(nn.Module):
    """RNNoise-like: a dense layer, two GRUs, the second reading everything; gains for the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.rnn1 = nn.Linear(10, 16), nn.GRU(16, 16, batch_first=True)
        self.rnn2 = nn.GRU(42, 20, batch_first=True)
        self.gains, self.last = nn.Linear(36, 24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        dense = torch.tanh(self.a(x))
        first = self.rnn1(dense)[0]
        second = self.rnn2(torch.cat([dense, first, x], -1))[0]
        gains = torch.relu(self.gains(torch.cat([first, second], -1)))
        return x * torch.sigmoid(self.last(gains))


@net(
    "rnn_tagger",
    "legacy13",
    "tokens:12 rnn:16",
    rigid=True,
    dynamo_gap="unrolled, its first step adds zeros that are made at run time and cannot be narrowed",
    x=text(30),
)
class RnnTagger(nn.Module):
    """A plain bidirectional RNN."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30, 12)
        self.rnn = nn.RNN(12, 16, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(self.tokens(x))[0])


@net(
    "seq2seq",
    "legacy17",
    "source:10 target:10 encoder+decoder:16",
    x=Input((9,), 30, {1: "source"}),
    y=Input((6,), 20, {1: "target"}),
)
class Seq2Seq(nn.Module):
    """The state an encoder ends in starts the decoder: hidden units of both are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(30, 10), nn.Embedding(20, 10)
        self.encoder, self.decoder = nn.GRU(10, 16, batch_first=True), nn.GRU(10, 16, batch_first=True)
        self.fc = nn.Linear(16, 20)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        state = self.encoder(self.source(x))[1]
        return self.fc(self.decoder(self.target(y), state)[0])


class Causal(nn.Module):
    """Two dilated causal convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.a, self.b = (nn.Conv1d(n, outputs, 3, dilation=dilation) for n in (inputs, outputs))
        self.short = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(F.pad(x, (self.pad, 0))))
        y = torch.relu(self.b(F.pad(y, (self.pad, 0))))
        return torch.relu(y + self.short(x))


@net("tcn", "dynamo20", "one.a:12 two.a:12 three.a:16", x=signal(4))
class Tcn(nn.Module):
    """Dilated convolutions and shortcuts, over a free length."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = Causal(4, 12, 1), Causal(12, 12, 2), Causal(12, 16, 4)
        self.fc = nn.Conv1d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.three(self.two(self.one(x))))


class Gate(nn.Module):
    """WaveNet: tanh times sigmoid of dilated convolutions, a skip and a residual output."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.pad = dilation
        self.filter, self.gate = (nn.Conv1d(8, 12, 2, dilation=dilation) for _ in range(2))
        self.skip, self.keep = nn.Conv1d(12, 16, 1), nn.Conv1d(12, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(x, (self.pad, 0))
        y = torch.tanh(self.filter(padded)) * torch.sigmoid(self.gate(padded))
        return x + self.keep(y), self.skip(y)


@net(
    "wavenet",
    "legacy17",
    "one.filter+one.gate:12 two.filter+two.gate:12 last1:16",
    x=signal(1),
    note="skips are summed: a stream",
)
class WaveNet(nn.Module):
    """Gated dilated convolutions with summed skips."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv1d(1, 8, 1), Gate(1), Gate(2)
        self.last1, self.last2 = nn.Conv1d(16, 16, 1), nn.Conv1d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, first = self.one(self.stem(x))
        _, second = self.two(x)
        return self.last2(torch.relu(self.last1(torch.relu(first + second))))


@net("quartznet", "legacy20", "stem:12 one:12 two:16 last:20", x=signal(6))
class QuartzNet(nn.Module):
    """Depthwise-separable convolutions along time, BatchNormalization, squeeze-and-excitation over free lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv1d(6, 12, 5, 2, 2), nn.BatchNorm1d(12)
        self.dw1, self.one, self.norm1 = nn.Conv1d(12, 12, 5, 1, 2, groups=12), nn.Conv1d(12, 12, 1), nn.BatchNorm1d(12)
        self.dw2, self.two, self.norm2 = nn.Conv1d(12, 12, 7, 1, 3, groups=12), nn.Conv1d(12, 16, 1), nn.BatchNorm1d(16)
        self.last, self.fc = nn.Conv1d(16, 20, 1), nn.Conv1d(20, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm0(self.stem(x)))
        x = torch.relu(self.norm1(self.one(self.dw1(x))))
        x = torch.relu(self.norm2(self.two(self.dw2(x))))
        return self.fc(torch.relu(self.last(x)))


class Conformer(nn.Module):
    """Half feed-forward, attention, gated convolution, half feed-forward, LayerNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn1, self.ffn2 = FeedForward(width, act=nn.SiLU()), FeedForward(width, act=nn.SiLU())
        self.attention = Attention(width)
        self.norm1, self.norm2, self.norm3, self.norm4, self.norm5 = (nn.LayerNorm(width) for _ in range(5))
        self.up, self.dw = nn.Conv1d(width, 40, 1), nn.Conv1d(20, 20, 5, padding=2, groups=20)
        self.norm, self.down = nn.BatchNorm1d(20), nn.Conv1d(20, width, 1)

    def convolve(self, x: Tensor) -> Tensor:
        """The gated convolution: pointwise, GLU, depthwise, BatchNormalization, SiLU, pointwise."""
        y = F.glu(self.up(x.transpose(1, 2)), 1)
        return self.down(F.silu(self.norm(self.dw(y)))).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(self.norm1(x))
        x = x + self.attention(self.norm2(x))
        x = x + self.convolve(self.norm3(x))
        return self.norm5(x + 0.5 * self.ffn2(self.norm4(x)))


@net(
    "conformer",
    "legacy17",
    "block.ffn1.fc1:24 block.ffn2.fc1:24 block.attention.q+block.attention.k+block.attention.v:4 block.up:20",
    x=sequence(10, 16),
)
class Speech(nn.Module):
    """One Conformer block between linear layers; the halves of the GLU go together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = nn.Linear(10, 16), Conformer(16), nn.Linear(16, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.stem(x))).log_softmax(-1)


@net(
    "lstm_autoencoder",
    "legacy18",
    "encoder:12 decoder:14",
    x=sequence(6, 8, free=False),
    note="the code is repeated for every step",
)
class LstmAutoencoder(nn.Module):
    """The last state is repeated and decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(6, 12, batch_first=True), nn.LSTM(12, 14, batch_first=True)
        self.fc = nn.Linear(14, 6)

    def forward(self, x: Tensor) -> Tensor:
        code = self.encoder(x)[0][:, -1:]
        return self.fc(self.decoder(code.expand(-1, 8, -1))[0])


@net("textcnn", "legacy17", "tokens:12 two:8 three:8 four:8", x=text(30, free=False))
class TextCnn(nn.Module):
    """Convolutions of three lengths over embeddings, maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.fc = nn.Embedding(30, 12), nn.Linear(24, 4)
        self.two, self.three, self.four = (nn.Conv1d(12, 8, size) for size in (2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x).transpose(1, 2)
        return self.fc(torch.cat([torch.relu(part(x)).amax(2) for part in (self.two, self.three, self.four)], 1))
