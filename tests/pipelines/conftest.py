"""Pipelines of diffusers with small models on a CPU; nothing is downloaded, because embeddings are passed in."""

import importlib.util

import pytest

MISSING = "diffusers is not installed, so the caches were not tried on its pipelines"


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("diffusers") is not None:
        return
    for item in items:
        if item.path.parent.name == "pipelines":
            item.add_marker(pytest.mark.skip(reason=MISSING))
