"""The nodes, one per file. What they need of ComfyUI's inside is in `host`."""
