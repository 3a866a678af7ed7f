"""The graphs that people build, sampled with and without the pack; each graph is one cell."""
