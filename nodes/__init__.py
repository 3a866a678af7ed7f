"""The nodes, one per file. What they need of ComfyUI's internals is in `host`."""
