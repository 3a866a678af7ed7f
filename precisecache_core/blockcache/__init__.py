"""BlockCache: which transformer blocks of a computed call are skipped."""
