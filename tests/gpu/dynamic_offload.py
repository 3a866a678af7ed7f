"""Turns on the host's dynamic offload, as its main.py does at start-up."""

import sys


def prepare(host):
    """The first half, to be called before torch is imported."""
    sys.path.insert(0, str(host))
    import comfy_aimdo.control

    comfy_aimdo.control.init()


def turn_on(room):
    """The second half. room: `full` reserves all memory of the GPU, so that no weight can stay there."""
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher
    import comfy_aimdo.control
    import torch

    def headroom(device):
        return torch.cuda.get_device_properties(device).total_memory if room == "full" else 0

    devices = comfy.model_management.get_all_torch_devices()
    if comfy_aimdo.control.init_devices((d.index, headroom(d)) for d in devices):
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True
