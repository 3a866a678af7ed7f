"""Every cell runs in a real ComfyUI in this process, on the CPU."""

from testkit.fixtures import _same_clip, bench  # noqa: F401
from testkit.tiny_host import enter_host, find_host

enter_host(find_host())
