"""BlockCache: skips transformer blocks inside computed calls."""
