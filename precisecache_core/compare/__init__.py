"""How near a cached video is to the uncached one."""
