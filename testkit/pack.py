"""Makes the pack importable as a package named PreciseCache, as ComfyUI loads custom nodes.

Importing this module does not load the pack; `from PreciseCache.nodes.host import attachment` does, once
`testkit.tiny_host.enter_host` has made the host importable.
"""

import importlib.util
import sys
from pathlib import Path

NAME = "PreciseCache"
ROOT = Path(__file__).resolve().parents[1]


class PackFinder:
    """Finds the pack in this folder, whatever the folder is called."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != NAME:
            return None
        return importlib.util.spec_from_file_location(
            NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )


sys.meta_path.insert(0, PackFinder)
