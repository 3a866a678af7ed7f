"""Finds ComfyUI on this machine. Standard library only: run.py uses it before anything is installed."""

import os
import re
from pathlib import Path


def is_comfyui(folder):
    return (folder / "main.py").is_file() and (folder / "comfy" / "samplers.py").is_file()


def find_comfyui(root):
    """The ComfyUI to use, or None.

    $COMFYUI_PATH and no other if it is set; else the ComfyUI that this pack is installed in; else
    ~/comfy/ComfyUI, the default workspace of comfy-cli. root: the pack's folder.
    """
    if os.environ.get("COMFYUI_PATH"):
        folder = Path(os.environ["COMFYUI_PATH"]).expanduser().resolve()
        if not is_comfyui(folder):
            print(f"COMFYUI_PATH is {folder}, where there is no ComfyUI: continuing without one.", flush=True)
            return None
        return folder
    candidates = [*root.parents[1:2], Path.home() / "comfy" / "ComfyUI"]
    return next((c for c in candidates if is_comfyui(c)), None)


def comfyui_version(folder):
    """The version in a ComfyUI folder's own file, or "of unknown version"."""
    file = folder / "comfyui_version.py"
    found = re.search(r'__version__ = "([^"]+)"', file.read_text("utf-8")) if file.is_file() else None
    return found[1] if found else "of unknown version"
