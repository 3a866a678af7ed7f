"""The boundary to ComfyUI: the only place that imports `comfy`."""
