"""The type checker sees the nodes and the core as one package, whatever the clone is called."""

from tools import typecheck

ADD = "def add(a: int) -> int:\n    return a\n"


def test_an_error_across_the_border_is_found_in_the_file_it_is_in(tmp_path, capfd):
    for name, source in {
        "precisecache_core/__init__.py": "",
        "precisecache_core/sums.py": ADD,
        "nodes/__init__.py": "",
        "nodes/node.py": "from ..precisecache_core.sums import add\n\nadd('1')\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    assert typecheck.main(tmp_path) == 1
    printed = capfd.readouterr().out
    assert printed.startswith('nodes/node.py:3: error: Argument 1 to "add"') and "Found 1 error " in printed
    (tmp_path / "nodes" / "node.py").write_text("from ..precisecache_core.sums import add\n\nadd(1)\n")
    assert typecheck.main(tmp_path) == 0
