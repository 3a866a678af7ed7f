"""The shipped graphs, workflows/*.json: written by `python3 -m tools.templates`."""
