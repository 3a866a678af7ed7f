"""What a trial takes of a call where the weights are streamed: `python3 run.py bench trial_share`.

A model that does not fit the GPU is copied over the bus at every pass, and a trial is a pass. The table is
computed from MACs, counted by torch on the meta device, and from the bytes of the weights; nothing is timed.
"""

import argparse
import logging
import sys

import torch

from benchmarks.counts import counted
from benchmarks.options import RESULTS
from benchmarks.study import host_version, write_table
from benchmarks.tables.macs import parameters, trial_of
from precisecache_core.lfcache.trial_cost import LIMIT_STREAMED, SHORTEST_CALL
from testkit.full_size import MODELS
from testkit.tiny_host import enter_host, find_host
from tools.machine import head

TITLES = {
    "wan1.3b": "Wan2.1 1.3B",
    "wan14b": "Wan2.1 or 2.2 14B",  # one of Wan2.2's two experts; they have the sizes of Wan2.1
    "hunyuan": "HunyuanVideo",
}
SIZES = ((832, 480), (1280, 720))
FRAMES = (81, 33, 1)
WEIGHTS = {"fp16": 2, "fp8": 1}  # bytes of one; norms and the like, which fp8 files keep in fp16, are not counted

# GB/s that reach the GPU, assumed. 16 lanes carry 15.75, 31.5 and 63 GB/s (8, 16 and 32 GT/s a lane, of 130 bits
# 128); copies from pinned memory are taken to get three quarters of that.
BUSES = {"PCIe 3": 12.0, "PCIe 4": 24.0, "PCIe 5": 48.0}

# TFLOP/s that a model gets out of a GPU, assumed. Wan2.1's README: 4 minutes for 1.3B at 480p on an RTX 4090, which is
# 50 calls of 283 TMACs, so 118 TFLOP/s. A quarter of 100 stands for the small cards.
SPEEDS = (25.0, 100.0)


def seconds(macs, nbytes, speed, bus):
    """Seconds of a pass whose copies overlap its arithmetic, as the host's do.

    nbytes: copied to the GPU. speed: TFLOP/s. bus: GB/s.
    """
    return max(2 * macs / (speed * 1e12), nbytes / (bus * 1e9))


def share(call, trial, nbytes, speed, bus):
    """Time of a trial over that of a call; call, trial: MACs; the rest as in `seconds`."""
    return seconds(trial, nbytes, speed, bus) / seconds(call, nbytes, speed, bus)


def cell(value):
    return f"{value:6.1%}{'*' if value > LIMIT_STREAMED else ' '}"


def rows(name):
    """The lines of one model."""
    for frames in FRAMES:
        for size in SIZES:
            latent = MODELS[name].latent(size, frames)
            call, trial = counted(name, latent, MODELS[name].branches).macs, trial_of(name, latent)[0].macs
            for weights, width in WEIGHTS.items():
                nbytes = parameters(name) * 1e9 * width
                shares = [share(call, trial, nbytes, speed, bus) for speed in SPEEDS for bus in BUSES.values()]
                yield (
                    f"{TITLES[name]:17} {'x'.join(map(str, size)):>8} {frames:6} {weights:>7} {nbytes / 1e9:5.1f} "
                    f"{call / 1e12:7.1f}  {share(call, trial, 0, 1, 1):8.2%}   "
                    + "  ".join(
                        " ".join(map(cell, shares[i : i + len(BUSES)])) for i in range(0, len(shares), len(BUSES))
                    )
                ).rstrip()


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    host = find_host()
    if host is None:
        sys.exit("this benchmark needs a ComfyUI: set COMFYUI_PATH")
    enter_host(host, is_fused=True)
    logging.disable(logging.INFO)
    torch.set_grad_enabled(False)
    buses = " ".join(f"{name:>7}" for name in BUSES)
    lines = [
        *head("trial_share", host_version(), "meta device"),
        f"one trial at the default factors, as a share of one call; * more than {LIMIT_STREAMED:.0%}: LFCache goes on "
        f"without trials if a call takes {SHORTEST_CALL} s or more",
        "all weights streamed at every pass, over 16 lanes: "
        + ", ".join(f"{name} {bus:.0f} GB/s" for name, bus in BUSES.items())
        + "; assumed, as are the TFLOP/s",
        "a pass takes as long as its arithmetic or its copies, whichever is longer; both branches are one pass",
        "(a call of two passes copies the weights twice: where it waits for them, the share is down to half of this)",
        "over eight lanes, or from memory that is not pinned, copies take twice as long or more",
        "",
        f"{'':63}{'on the':>8}   " + "  ".join(f"{f'{speed:.0f} TFLOP/s':^{len(buses)}}" for speed in SPEEDS).rstrip(),
        f"{'':17} {'size':>8} {'frames':>6} {'weights':>7} {'GB':>5} {'TMACs':>7}  {'GPU':>8}   "
        + "  ".join([buses] * len(SPEEDS)),
    ]
    for name in TITLES:
        lines += rows(name)
    write_table(RESULTS / "trial_share.txt", lines)


if __name__ == "__main__":
    main()
