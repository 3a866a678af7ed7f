"""The caches in pipelines that drive themselves: they call the model, mix its branches and step their scheduler."""
