"""`python -m tools.typecheck`: mypy over the nodes and the core.

The nodes import the core relatively, because ComfyUI loads this folder as one package. mypy has to see that
package too, but the clone's name may not be a valid package name: mypy gets a copy under another name.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACK = "PreciseCache"
FOLDERS = ("precisecache_core", "nodes")


def main(root=ROOT):
    with tempfile.TemporaryDirectory(prefix="precisecache-") as folder:
        pack = Path(folder) / PACK
        for name in FOLDERS:
            shutil.copytree(root / name, pack / name, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
        (pack / "__init__.py").touch()
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
        ]
        for name in FOLDERS:
            command += ["-p", f"{PACK}.{name}"]
        result = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout.replace(f"{PACK}{os.sep}", ""), end="", flush=True)
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
