"""How much BlockCache keeps, counted by the memory benchmark on fake GPU tensors."""

import pytest

from benchmarks.tables.memory import BLOCKS, DIM, bytes_held
from precisecache_core.blockcache.config import BlockCacheConfig

TOKENS = 64
RESIDUAL = 2 * TOKENS * DIM * 2  # bytes of one block's residual: two branches, bf16
SKIPPED = {3, 4, 5, 10, 20, 21}  # three ranges


@pytest.mark.parametrize(
    "storage, device, steady_gpu, steady_host",
    [
        ("merged", "model", 3, 0),
        ("merged", "cpu", 0, 3),
        ("per_block", "model", 6, 0),
        ("per_block", "cpu", 0, 6),
    ],
)
def test_steady_state(storage, device, steady_gpu, steady_host):
    _, gpu, host = bytes_held(TOKENS, BlockCacheConfig(storage=storage, cache_device=device), SKIPPED)
    assert (gpu / RESIDUAL, host / RESIDUAL) == (steady_gpu, steady_host)


def test_peak():
    def peak(**settings):
        return bytes_held(TOKENS, BlockCacheConfig(**settings), SKIPPED)[0] / RESIDUAL

    # per_block holds every block of the refresh; merged holds one residual per range and the one being measured
    assert peak(storage="per_block") >= BLOCKS
    assert peak(storage="merged") < 4.01
    assert peak(storage="merged", cache_device="cpu") < 2.01
