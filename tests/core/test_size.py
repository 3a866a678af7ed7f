"""No class and no module grows larger than one person can read at once."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "precisecache_core").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")])
MOST_LINES, MOST_ATTRIBUTES, MOST_METHODS = 250, 15, 20


def attributes_of(node):
    """The names that the methods of a class set on self."""
    return {
        target.attr
        for target in ast.walk(node)
        if isinstance(target, ast.Attribute)
        and isinstance(target.ctx, ast.Store)
        and isinstance(target.value, ast.Name)
        and target.value.id == "self"
    }


def methods_of(node):
    return [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def too_large(source):
    """(name, number of attributes, number of methods) of each class with too many of either."""
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    sizes = ((node.name, len(attributes_of(node)), len(methods_of(node))) for node in classes)
    return [size for size in sizes if size[1] > MOST_ATTRIBUTES or size[2] > MOST_METHODS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_classes_stay_small(path):
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    assert too_large(source) == []


def test_a_class_that_is_too_large_is_found():
    attributes = "".join(f"        self.a{i} = 0\n" for i in range(MOST_ATTRIBUTES + 1))
    methods = "".join(f"    def m{i}(self): pass\n" for i in range(MOST_METHODS + 1))
    assert too_large(f"class A:\n    def __init__(self):\n{attributes}") == [("A", MOST_ATTRIBUTES + 1, 1)]
    assert too_large(f"class B:\n{methods}") == [("B", 0, MOST_METHODS + 1)]
