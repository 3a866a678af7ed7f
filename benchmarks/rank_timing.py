"""Times a stack of Wan-like blocks under sequence parallelism, one process per rank; needs several GPUs.

The stack has the products of Wan2.1's blocks, the all-to-all of Ulysses and random weights, which all blocks share.
Norms, modulation and rotary embedding are left out: they take little time. `python -m benchmarks.rank_timing` tries
it on the CPU with gloo at a tiny size: its seconds mean nothing, but two ranks must give what one gives.
"""

import statistics
import time
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import multiprocessing

# the most that a call of one pass takes, trials apart: for the decision, for the blocks, two for a pass that skips some
EXCHANGES_PER_CALL = 4
PATIENCE = timedelta(minutes=5)
COMPARED = 8  # tokens of the result, to see that every number of ranks gives the same


@dataclass(frozen=True)
class Size:
    """Of a stack. tokens: of the whole video; rows: guidance branches; layers: how many blocks."""

    tokens: int
    text: int
    dim: int
    ffn: int
    heads: int
    rows: int
    layers: int
    dtype: torch.dtype = torch.bfloat16


TINY = Size(tokens=32, text=5, dim=16, ffn=24, heads=4, rows=2, layers=3, dtype=torch.float32)


def to_heads(x, ranks, swap):
    """(rows, tokens / ranks, heads, width) -> (rows, tokens, heads / ranks, width).

    swap(x): the all-to-all over the first dimension, one slice for each rank.
    """
    rows, shard, heads, width = x.shape
    if ranks == 1:
        return x
    x = swap(x.reshape(rows, shard, ranks, heads // ranks, width).permute(2, 0, 1, 3, 4).contiguous())
    return x.transpose(0, 1).reshape(rows, ranks * shard, heads // ranks, width)


def to_tokens(x, ranks, swap):
    """The way back: (rows, tokens, heads / ranks, width) -> (rows, tokens / ranks, heads * width)."""
    rows, tokens, heads, width = x.shape
    if ranks > 1:
        x = swap(x.reshape(rows, ranks, tokens // ranks, heads, width).transpose(0, 1).contiguous())
        x = x.permute(1, 2, 0, 3, 4)
    return x.reshape(rows, tokens // ranks, ranks * heads * width)


class Stack:
    """A rank's part of the blocks. swap: see `to_heads`."""

    def __init__(self, size, ranks=1, swap=None, device="cpu"):
        self.size, self.ranks, self.swap = size, ranks, swap
        generator = torch.Generator("cpu").manual_seed(0)

        def weight(*shape):
            values = torch.empty(shape, dtype=size.dtype, device=device)
            if device != "meta":
                values.copy_(torch.randn(shape, generator=generator) / shape[1] ** 0.5)
            return values

        self.attention = [[weight(size.dim, size.dim) for _ in range(4)] for _ in range(2)]  # of itself, of the text
        self.widen, self.narrow = weight(size.ffn, size.dim), weight(size.dim, size.ffn)

    def attend(self, weights, x, context):
        """Attention of the shard to a context, which is the shard itself or the text."""
        q, k, v = (
            to_heads(F.linear(given, w).unflatten(2, (self.size.heads, -1)), self.ranks, self.swap)
            for given, w in zip((x, context, context), weights)
        )
        out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return F.linear(to_tokens(out.transpose(1, 2), self.ranks, self.swap), weights[3])

    @torch.inference_mode()
    def call(self, x, text):
        """All blocks. x: the shard, (rows, tokens / ranks, dim); text: the whole text, (rows, tokens, dim)."""

        def normed(given):
            return F.layer_norm(given, given.shape[-1:])

        for _ in range(self.size.layers):
            given = normed(x)
            x = x + self.attend(self.attention[0], given, given)
            x = x + self.attend(self.attention[1], normed(x), text)
            x = x + F.linear(F.gelu(F.linear(normed(x), self.widen), approximate="tanh"), self.narrow)
        return x


def inputs_of(size, rank, ranks, device):
    """(the rank's shard of some tokens, padded with zeros to a multiple of the ranks; the text)."""

    def waves(first, last):
        token = torch.arange(first, last, device=device)[None, :, None]
        row = torch.arange(size.rows, device=device)[:, None, None]
        return torch.sin(0.37 * token + 0.11 * torch.arange(size.dim, device=device) ** 2 + row).to(size.dtype)

    shard = ceil(size.tokens / ranks)
    x = waves(rank * shard, min((rank + 1) * shard, size.tokens))
    return F.pad(x, (0, 0, 0, shard - x.shape[1])), waves(size.tokens, size.tokens + size.text)


def ratios(plain, exchanging):
    """(median, least, most) of the ratio of calls made side by side, exchanging over plain."""
    found = [e / p for p, e in zip(plain, exchanging)]
    return statistics.median(found), min(found), max(found)


def work(rank, ranks, backend, size, rounds, nbytes, folder):
    """One rank's process: it times its calls and, as rank 0, saves them with the start of its result."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        backend, init_method=f"file://{folder}/group", rank=rank, world_size=ranks, timeout=PATIENCE
    )
    host = dist.new_group(backend="gloo", timeout=PATIENCE)

    def swap(given):
        taken = torch.empty_like(given)
        dist.all_to_all_single(taken, given)
        return taken

    stack, (x, text) = Stack(size, ranks, swap, device), inputs_of(size, rank, ranks, device)
    message = torch.zeros(nbytes, dtype=torch.uint8)
    messages = [torch.empty_like(message) for _ in range(ranks)]

    def seconds(exchanges):
        synchronize(device)
        dist.barrier()
        start = time.perf_counter()
        for _ in range(exchanges):  # each waits for the device, because what the caches say comes from it
            synchronize(device)
            dist.all_gather(messages, message, group=host)
        stack.call(x, text)
        synchronize(device)
        return time.perf_counter() - start

    seconds(EXCHANGES_PER_CALL)  # warms up
    plain, exchanging = [], []
    for i in range(rounds):
        kinds = [(plain, 0), *([(exchanging, EXCHANGES_PER_CALL)] if nbytes and ranks > 1 else [])]
        for found, exchanges in kinds if i % 2 else kinds[::-1]:
            found.append(seconds(exchanges))
    if rank == 0:
        result = stack.call(x, text)[:, :COMPARED].float().cpu()
        torch.save({"plain": plain, "exchanging": exchanging, "result": result}, f"{folder}/times")
    else:
        stack.call(x, text)
    dist.destroy_process_group()


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(ranks, size, rounds, nbytes, backend="nccl"):
    """{plain, exchanging: seconds of every call; result: its start} of a group of `ranks` processes.

    nbytes: of a message. With 0, and with one rank, nothing is exchanged and `exchanging` is empty.
    """
    with TemporaryDirectory() as folder:
        multiprocessing.spawn(work, (ranks, backend, size, rounds, nbytes, folder), nprocs=ranks)
        return torch.load(f"{folder}/times")


def timing_lines(counts, size, rounds, nbytes, backend="nccl"):
    """Yield the measured table, line by line."""
    yield (
        f"{'ranks':>5} {'s a call':>10} {'with exchanges':>14} {'with / without (least, most)':>31} "
        f"{'1 rank / this':>13} {'result differs by':>17}"
    )
    first = None
    for ranks in counts:
        found = timed(ranks, size, rounds, nbytes, backend)
        first = first or found
        plain = statistics.median(found["plain"])
        with_exchanges, ratio = "-", "-"
        if found["exchanging"]:
            median, least, most = ratios(found["plain"], found["exchanging"])
            with_exchanges = f"{statistics.median(found['exchanging']):.4g}"
            ratio = f"{median:.4f} ({least:.4f}, {most:.4f})"
        off = (found["result"] - first["result"]).norm() / first["result"].norm()
        yield (
            f"{ranks:5} {plain:10.4g} {with_exchanges:>14} {ratio:>31} "
            f"{statistics.median(first['plain']) / plain:13.2f} {off:17.1e}"
        )


if __name__ == "__main__":
    print("tried on the CPU with gloo; the seconds mean nothing")
    for line in timing_lines((1, 2, 4), TINY, 3, 64, "gloo"):
        print(line, flush=True)
