"""The form of a graph: its nodes, where they stand, and the two formats that ComfyUI reads."""
