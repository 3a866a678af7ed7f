"""LFCache: which calls of a sampler are computed, and what stands in for the others."""
