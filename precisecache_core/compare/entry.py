"""One video of a comparison in words, from its entry.

An entry is what the node Compare puts into the history: `label`, `psnr` in dB (None if it is infinite or not finite),
`ssim`, `lpips`, `equal`, `computed` and `calls`, `seconds`, `speedup` and `is_measured`. Of these, `psnr` and what
follows it may be missing or None.
"""

import math

from ..record.speedup import ratio_text, saved_text
from .quality import quality_text


def entry_line(entry: dict) -> str:
    """One line: `LFCache base: 38.42 dB, SSIM 0.9812, 12 of 30 computed, 41 s, 2.4x faster (measured)`."""
    parts = [quality_words(entry), cost_words(entry), speedup_words(entry)]
    return f"{entry['label']}: {', '.join(part for part in parts if part)}"


def quality_words(entry: dict) -> str:
    """PSNR, SSIM and LPIPS: `38.42 dB, SSIM 0.9812`, `equal`; "" for an entry without them, the reference's."""
    if "psnr" not in entry:
        return ""
    psnr = math.inf if entry["equal"] else math.nan if entry["psnr"] is None else entry["psnr"]
    return quality_text(psnr, entry["ssim"], entry.get("lpips"))


def cost_words(entry: dict) -> str:
    """Calls and seconds: `12 of 30 computed, 41 s`; "" if neither is known."""
    computed, seconds = entry.get("computed"), entry.get("seconds")
    parts = [] if computed is None else [f"{computed} of {entry['calls']} computed"]
    return ", ".join(parts + ([] if seconds is None else [saved_text(seconds)]))


def speedup_words(entry: dict) -> str:
    """`2.4x faster (measured)`; "" if it is not known."""
    if entry.get("speedup") is None:
        return ""
    return ratio_text(entry["speedup"], "measured" if entry["is_measured"] else "estimate")
