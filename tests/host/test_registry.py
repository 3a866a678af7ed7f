"""What ComfyUI itself reads from the pack's pyproject.toml."""

import re

import pytest

from testkit.tiny_host import ROOT


def test_the_host_reads_the_packs_metadata():
    parser = pytest.importorskip("comfy_config.config_parser")
    found = parser.extract_node_configuration(str(ROOT))
    project, comfy = found.project, found.tool_comfy
    assert project.name == "precisecache" and re.fullmatch(r"\d+\.\d+\.\d+", project.version)
    assert project.license.text == "MIT" and project.description
    assert project.urls.repository.startswith("https://github.com/") and project.urls.issues and project.urls.homepage
    assert project.supported_os == ["OS Independent"] and project.supported_comfyui_version == ">=0.3.64"
    assert comfy.display_name == "PreciseCache" and comfy.publisher_id and comfy.icon.endswith(".png")
