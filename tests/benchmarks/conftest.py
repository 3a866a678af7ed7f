"""The benchmarks on tiny input, in a real ComfyUI in this process; test_memory and test_measures need none."""

from testkit.fixtures import _same_clip, bench, host_of_benchmarks  # noqa: F401
from testkit.tiny_host import enter_host, find_host

HOST = find_host()
if HOST is not None:
    enter_host(HOST)
collect_ignore_glob = [] if HOST else ["test_[!m]*.py", "test_macs.py", "test_multi_gpu*.py"]
