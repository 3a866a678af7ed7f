"""The variants that the demo compares, and how they are sampled and timed."""

from dataclasses import dataclass, field

import numpy as np
import torch

from tools.phases import Phase


@dataclass(frozen=True)
class Variant:
    """One way to sample the same video.

    lfcache, blockcache: which caches are used. preset: LFCache's, None for the one in the demo's options.
    """

    name: str
    lfcache: bool = False
    blockcache: bool = False
    preset: str | None = None


# the first variant is the reference for all others
VARIANTS = (
    Variant("uncached"),
    Variant("LFCache", lfcache=True),
    Variant("flash", lfcache=True, blockcache=True, preset="turbo"),
)


@dataclass
class Take:
    """One sampled video.

    frames: (frames, height, width, 3), float32 in [0, 1] or uint8.
    seconds: time in the sampler. run: the report entry, None where no cache was used.
    """

    frames: np.ndarray
    seconds: float
    run: dict | None


@dataclass
class Result:
    """All takes of a variant: the last one's video and report, and every time measured."""

    variant: Variant
    frames: np.ndarray = None
    run: dict | None = None
    times: list = field(default_factory=list)

    def add(self, take):
        self.frames, self.run = take.frames, take.run
        self.times.append(take.seconds)

    @property
    def video(self):
        """The frames as a float32 tensor in [0, 1]."""
        frames = torch.from_numpy(self.frames)
        return frames.float() / 255 if frames.dtype == torch.uint8 else frames

    @property
    def seconds(self):
        """The shortest time: disturbances only make a measurement longer."""
        return min(self.times)


async def measure(sample, steps, repeats, on_first):
    """Sample every variant `repeats` times in turn, so that a slow phase of the machine affects all of them.

    sample(variant, steps, on_step): coroutine that returns a Take and calls on_step(steps done, of how many).
    on_first: called with the first Result, as soon as it has a video. Returns a list of Result.
    """
    warmup = min(steps, 8)
    with Phase(f"warming up with {warmup} steps of each variant") as phase:
        for before, variant in enumerate(VARIANTS):
            await sample(variant, warmup, lambda step, of: phase.step(before * of + step, len(VARIANTS) * of))
    results = [Result(variant) for variant in VARIANTS]
    for repeat in range(repeats):
        for result in results:
            with Phase(f"{result.variant.name}, run {repeat + 1} of {repeats}") as phase:
                result.add(await sample(result.variant, steps, phase.step))
                phase.result = f"{result.times[-1]:.2f} s"
            if result is results[0] and repeat == 0:
                on_first(result)
    return results
