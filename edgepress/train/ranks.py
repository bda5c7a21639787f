"""Processes that train together: each has its share of every batch, gradients are averaged, all hold the same weights.

torch's own launcher starts them (``torchrun --nproc-per-node 2 -m edgepress finetune ...``) and says who is who in the
environment. gloo connects CPUs, nccl GPUs. What is decided is decided by the first process, and the others are told.
Nothing is pickled: what goes from one process to another are tensors of numbers and bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from edgepress.errors import InputError


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: number of this process.
        size: how many there are.
        device: where messages live.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def average(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace tensors by their mean over all processes, in place; one message for all of them."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def told(self, data: bytes) -> bytes:
        """The bytes that the first process has."""
        if self.size == 1:
            return data
        length = torch.tensor([len(data)], dtype=torch.int64, device=self.device)
        dist.broadcast(length, 0)
        if not int(length):
            return b""
        sent = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.first:
            sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(sent, 0)
        return sent.cpu().numpy().tobytes()


def launched() -> bool:
    """Whether torch's launcher has started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process speaks: the first one, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Meet the other processes, if there are any.

    Args:
        device: ``cpu`` or ``cuda``; every process takes the GPU of its local number.

    Raises:
        InputError: there is no GPU for it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch finds no GPU here: leave the option out.")
    if not launched():
        yield Ranks(device=device)
        return
    own = device
    if device == "cuda":
        number = int(os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            raise InputError(f"There are {torch.cuda.device_count()} GPUs, but more processes: start one for each GPU.")
        own = f"cuda:{number}"
        torch.cuda.set_device(number)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), own)
    finally:
        dist.destroy_process_group()
