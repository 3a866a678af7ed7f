"""What tests and benchmarks share: the tiny model in a real ComfyUI, small models of every architecture.

After `import testkit` the pack can be imported as `PreciseCache`.
"""

from testkit import pack  # noqa: F401
