"""Every graph that people build, sampled with and without the pack: one cell each."""
