"""Bytes that tensors take while code runs, on any device; fake tensors count too."""

import weakref
from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):
    """Bytes of the live tensor storages, now and at their peak, by device."""

    def __init__(self):
        super().__init__()
        self.live, self.peak, self._users = Counter(), Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            storage, device = result.untyped_storage(), result.device.type
            self._use(storage._cdata, storage.nbytes(), device)
            weakref.finalize(result, self._leave, storage._cdata, storage.nbytes(), device)
        return result

    def _use(self, storage, size, device):
        self._users[storage] += 1
        if self._users[storage] == 1:
            self.live[device] += size
            self.peak[device] = max(self.peak[device], self.live[device])

    def _leave(self, storage, size, device):
        self._users[storage] -= 1
        if self._users[storage] == 0:
            self.live[device] -= size
