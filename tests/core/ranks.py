"""Processes that sample one latent together over gloo, and what goes wrong on one of them."""

import contextlib
import logging
import multiprocessing
import os
import tempfile
from datetime import timedelta
from unittest import mock

import torch
import torch.distributed as dist

from precisecache_core import ALONE, BlockCacheConfig, LFCacheConfig, TorchGroup, flow_sigmas, guided, sample_flow
from precisecache_core.blockcache import block_pass
from precisecache_core.lfcache.latent.frequency import LowBand
from precisecache_core.lfcache.plan.rehearsal import Rehearsal
from precisecache_core.lfcache.predictions import Predictions

SHAPE, STEPS, DIM, DEPTH = (1, 4, 4, 8, 8), 10, 8, 6
PATIENCE = 30.0  # seconds; nothing in these tests takes as long if nobody hangs
OUT_OF_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory")


class Broken(Exception):
    """What the model raises if it is told to fail."""


class Block(torch.nn.Module):
    """Mixes the tokens of all ranks, which needs an exchange, as attention does."""

    def __init__(self, index, ranks):
        super().__init__()
        self.ranks = ranks
        generator = torch.Generator().manual_seed(index)
        self.own, self.mixed = (torch.randn(DIM, DIM, generator=generator) / DIM**0.5 for _ in range(2))
        self.scale = 0.05 * (1 + (index * 5) % DEPTH)

    def forward(self, x):
        return x + self.scale * torch.tanh(x @ self.own + self.ranks.mean(x) @ self.mixed)


class Ranks:
    """The exchanges of the model. group: None if every rank computes the whole model by itself."""

    def __init__(self, group=None):
        self.group = group
        self.size = 1 if group is None else dist.get_world_size(group)
        self.rank = 0 if group is None else dist.get_rank(group)

    def mean(self, x):
        total = x.sum(1, keepdim=True)
        if self.group is not None:
            dist.all_reduce(total, group=self.group)
        return total / (x.shape[1] * self.size)

    def share(self, tokens):
        return tokens.chunk(self.size, 1)[self.rank]

    def whole(self, tokens):
        if self.group is None:
            return tokens
        parts = [torch.empty_like(tokens) for _ in range(self.size)]
        dist.all_gather(parts, tokens.contiguous(), group=self.group)
        return torch.cat(parts, 1)


class Network:
    """A velocity network with sequence parallelism over the tokens of the latent."""

    def __init__(self, ranks):
        self.ranks = ranks
        self.blocks = [Block(i, ranks) for i in range(DEPTH)]
        generator = torch.Generator().manual_seed(99)
        self.enter, self.leave = torch.randn(4, DIM, generator=generator) / 2, torch.randn(DIM, 4, generator=generator)

    def __call__(self, x, t, context):
        tokens = self.ranks.share(x.flatten(2).transpose(1, 2) @ self.enter + context + (t / 1000)[:, None, None])
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.ranks.whole(tokens) @ self.leave
        return tokens.transpose(1, 2).reshape(x.shape) + x * (t / 1000).reshape(-1, 1, 1, 1, 1)


class Fault:
    """What goes wrong: `kind`, at the `when`-th time (from 0); every time if None. It is a context."""

    def __init__(self, kind=None, when=None):
        self.kind, self.when, self.count = kind, when, -1

    def strikes(self):
        self.count += 1
        return self.when is None or self.count == self.when

    def denoise(self, denoise):
        """The model with this fault: what it gives on small latents (trials) or on the full latent."""

        def faulty(x, sigma):
            is_trial = x.shape[2:] != SHAPE[2:]
            kind, _, where = (self.kind or "").partition(" of ")
            if where != ("trial" if is_trial else "call") or not self.strikes():
                return denoise(x, sigma)
            if kind == "error":
                raise Broken("the model failed")
            result = denoise(x, sigma)
            if kind == "no memory":
                raise OUT_OF_MEMORY
            return result * float("nan")

        return faulty

    @contextlib.contextmanager
    def __call__(self):
        """Puts the fault into the caches' own parts."""
        parts = {
            "lfd up": (LowBand, "difference", lambda value: value * 1.1),
            "lfd down": (LowBand, "difference", lambda value: value * 0.9),
            "lfd nan": (LowBand, "difference", lambda value: value * float("nan")),
            "no memory to compare": (LowBand, "difference", None),
            "no memory to plan": (LowBand, "coefficients", None),
            "no memory to store": (Predictions, "store", None),
            "no memory to reuse": (Predictions, "predict", None),
            "no memory to rehearse": (Rehearsal, "answer", None),
            "no memory to copy": (block_pass, "copies", None),
            "no memory to add": (block_pass, "add_residuals", None),
            "other scores": (block_pass, "squared_norm", lambda value: value * 10.0 ** (3 * (self.count % DEPTH))),
        }
        if self.kind not in parts:
            yield
            return
        owner, name, change = parts[self.kind]
        original = getattr(owner, name)

        def faulty(*args, **kwargs):
            if not self.strikes():
                return original(*args, **kwargs)
            if change is None:
                raise OUT_OF_MEMORY
            return change(original(*args, **kwargs))

        with mock.patch.object(owner, name, faulty):
            yield


def course(caches, fault, group=ALONE, model_group=None):
    """One run; returns (latent, report entry), or the name of the error that ended it.

    caches: (settings of LFCache or None, settings of BlockCache or None).
    """
    lfcache, blockcache = caches
    network = Network(Ranks(model_group))
    generator = torch.Generator().manual_seed(7)
    noise, cond, uncond = (torch.randn(s, generator=generator) for s in (SHAPE, (1, 1, DIM), (1, 1, DIM)))
    try:
        with fault():
            return sample_flow(
                fault.denoise(guided(network, cond, uncond, 3.0)),
                noise,
                flow_sigmas(STEPS, 2.0),
                None if lfcache is None else LFCacheConfig(**lfcache),
                None if blockcache is None else BlockCacheConfig(**blockcache),
                network.blocks,
                group=group,
            )
    except (Broken, torch.cuda.OutOfMemoryError) as error:
        return type(error).__name__


def serve(rank, size, folder, pipe):
    """A rank of `Team`: runs the courses that it is told."""
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # the tests read the warnings from the reports
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    patience = timedelta(seconds=PATIENCE)
    groups = {members: [dist.new_group(range(members), timeout=patience) for _ in range(2)] for members in (2, size)}
    talks = {n: TorchGroup(talk, PATIENCE) for n, (talk, _) in groups.items() if rank < n}
    with_the_dead = TorchGroup(groups[size][0], patience=1.0)
    while (task := pipe.recv()) is not None:
        caches, kind, when, faulty_rank, members, is_split, is_killed = task
        if rank < members:
            if is_killed and rank == faulty_rank:
                os._exit(1)
            fault = Fault(kind, when) if rank == faulty_rank else Fault()
            talk = with_the_dead if is_killed else talks[members]
            pipe.send(course(caches, fault, talk, groups[members][1] if is_split else None))
    dist.destroy_process_group()


class Team:
    """Processes that wait for courses to run; a context manager."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ranks"])  # so that torch is imported once
        self.folder = tempfile.TemporaryDirectory()
        ends = [context.Pipe() for _ in range(self.size)]
        self.pipes = [mine for mine, _ in ends]
        self.processes = [
            context.Process(target=serve, args=(rank, self.size, self.folder.name, end), daemon=True)
            for rank, (_, end) in enumerate(ends)
        ]
        for process in self.processes:
            process.start()
        for _, end in ends:
            end.close()
        return self

    def __exit__(self, *_):
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(1)
            process.kill()
        self.folder.cleanup()

    def run(self, caches, kind=None, when=None, members=2, faulty_rank=1, is_split=True, is_killed=False):
        """Run a course on ranks 0 to members - 1 with a fault on one of them; returns what `course` does, for each.

        is_split: whether the ranks compute the model together. is_killed: that rank's process ends before the run.
        Raises TimeoutError if a rank hangs.
        """
        for pipe in self.pipes[:members]:
            pipe.send((caches, kind, when, faulty_rank, members, is_split, is_killed))
        results = []
        for rank, pipe in enumerate(self.pipes[:members]):
            if is_killed and rank == faulty_rank:
                continue
            if not pipe.poll(2 * PATIENCE):
                raise TimeoutError(f"rank {rank} hangs")
            results.append(pipe.recv())
        return results
