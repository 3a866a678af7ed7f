"""Which calls to compute if their number is given: a rehearsal on a small latent, and the best plan for it."""
