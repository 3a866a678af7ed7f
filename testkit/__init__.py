"""What tests and benchmarks share: the tiny model in a real ComfyUI, small models of every architecture."""
