"""The bundled small model, which runs on a CPU without a download."""

from tools.templates.form.graph import Graph
from tools.templates.recipes import notes, parts

MODEL = "Model and size"
COLUMNS = [(MODEL,), *parts.WIDE[2:]]


def demo():
    about = [
        "Runs on a laptop's CPU without a download: a small video model comes with PreciseCache.",
        "Press *Run* and watch **Cache Stats**. Then set *preset* to *off*, bypass BlockCache (Ctrl+B) and run it "
        "again with the same seed.",
        "LFCache is set to *base*, BlockCache to skip very little, as every one of this small model's 16 blocks "
        "matters.",
    ]
    graph = Graph(
        "precisecache_tiny_demo", ("Small video model", "runs on a CPU, no download"), about, notes.USAGE, COLUMNS
    )
    tiny = graph.add("PreciseCacheTinyModel", MODEL, subject="triangle", color="orange", motion="right")
    latent = parts.empty_latent(graph, 256, 256, 13, MODEL)
    model = graph.add("PreciseCacheLFCache", parts.CACHE, model=tiny[0])[0]
    model = graph.add("PreciseCacheBlockCache", parts.CACHE, model=model, cache_rate=0.1, reuse_steps=1)[0]
    samples = graph.add(
        "KSampler", parts.SAMPLING, model=model, positive=tiny[1], negative=tiny[2], latent_image=latent, seed=0,
        steps=50,         cfg=4, sampler_name="euler", scheduler="simple",
    )[0]  # fmt: skip
    samples = parts.with_statistics(graph, model, samples)
    parts.video(graph, samples, tiny[3], 8)
    return graph
