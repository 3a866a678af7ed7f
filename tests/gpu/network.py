"""A small network for the tests that need no ComfyUI, and measurements of its memory and its waits."""

import gc
import warnings
from contextlib import contextmanager

import torch
from torch import nn

from precisecache_core import flow_sigmas, sample_flow
from testkit.live_bytes import LiveBytes

SHAPE = (1, 8, 4, 32, 32)
STEPS = 24


class Block(nn.Module):
    def __init__(self, width, gain):
        super().__init__()
        self.linear, self.gain = nn.Linear(width, width), gain

    def forward(self, x):
        return x + self.gain * torch.tanh(self.linear(x))


class Network(nn.Module):
    """Blocks over the positions of a latent of any size; its answer curves with the noise level.

    scratch: how many copies of the input an extra buffer holds during a call, as activations would.
    """

    def __init__(self, width=SHAPE[1], gains=(2.0, 0.02, 0.03, 1.0, 0.04, 3.0), scratch=0):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, gain) for gain in gains)
        self.scratch = scratch
        self.shapes = []

    def forward(self, x, sigma):
        """The denoised latent."""
        self.shapes.append(tuple(x.shape))
        activations = x.new_empty((self.scratch, *x.shape)) if self.scratch else None
        tokens = x.movedim(1, -1)
        for block in self.blocks:
            tokens = block(tokens)
        del activations
        return x - sigma * (0.8 * x + 0.1 * tokens.movedim(-1, 1) + 3 * sigma**2)


def network(device, **options):
    torch.manual_seed(0)
    return Network(**options).to(device)


def sampled(model, device, steps=STEPS, **caches):
    """(latent, report entry) of a run in the core's own loop, always from the same noise."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    return sample_flow(model, noise, flow_sigmas(steps, 3.0).to(device), blocks=model.blocks, **caches)


def prediction_bytes():
    """Bytes of one prediction in float32."""
    return torch.empty(SHAPE, device="meta").nbytes


class Memory:
    """Bytes on the device, in excess of those at the start: at the end (`after`) and at most (`peak`)."""

    before = after = peak = 0


@contextmanager
def memory_on(device):
    """The Memory used while inside; on a CPU, where CUDA cannot be asked, live tensors are counted."""
    memory = Memory()
    gc.collect()
    if device.type == "cpu":
        with LiveBytes() as counted:
            yield memory
            gc.collect()
        memory.after, memory.peak = counted.live["cpu"], counted.peak["cpu"]
        return
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield memory
    gc.collect()
    torch.cuda.synchronize(device)
    memory.after = torch.cuda.memory_allocated(device) - before
    memory.peak = torch.cuda.max_memory_allocated(device) - before


@contextmanager
def synchronisations():
    """A list that grows by one whenever the program waits for the GPU."""
    waits = Waits()
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = waits.note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode(mode)


class Waits(list):
    def note(self, message, category, filename, line, *rest):
        if "synchronizing CUDA operation" in str(message):
            self.append(f"{filename}:{line}")
