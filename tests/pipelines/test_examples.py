"""The example scripts: their main functions run on small pipelines in place of the downloaded ones."""

import importlib.util
import json
from pathlib import Path
from pipes import cogvideox, hunyuan, wan

import jsonschema
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "precisecache_core/record/report.schema.json").read_text("utf-8"))
EXAMPLES = {"wan": wan, "hunyuan_video": hunyuan, "cogvideox": cogvideox}


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}_diffusers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class SmallPipe:
    """A small pipeline, called as its large sister is: its prompt and its sizes are replaced."""

    def __init__(self, make):
        self.pipe, self.go = make()
        self.prompts = []

    def __getattr__(self, name):
        return getattr(self.pipe, name)

    def __call__(self, prompt, num_inference_steps, generator, height, width, num_frames, **other):
        assert height % 16 == width % 16 == 0 and num_frames % 4 == 1
        assert set(other) <= {"negative_prompt", "guidance_scale"}
        self.prompts.append((prompt, num_inference_steps))
        self.go(num_inference_steps=num_inference_steps, generator=generator)
        return type("Output", (), {"frames": ["video"]})


@pytest.mark.parametrize("preset", ["base", "flash", "off"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_writes_a_video_and_its_report(name, preset, tmp_path, monkeypatch):
    example, small, written = load(f"{name}"), SmallPipe(EXAMPLES[name]), []
    for kind in vars(example).values():
        if isinstance(kind, type) and hasattr(kind, "from_pretrained"):
            monkeypatch.setattr(kind, "from_pretrained", lambda *args, **kwargs: small)
    monkeypatch.setattr(example, "export_to_video", lambda video, path, fps: written.append((video, path, fps)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    example.main(["a red ball", "--preset", preset, "--steps", "10", "--output", str(tmp_path / "clip.mp4")])
    assert small.prompts == [("a red ball", 10)]
    assert [(video, path) for video, path, fps in written] == [("video", str(tmp_path / "clip.mp4"))]
    report = json.loads((tmp_path / "clip.json").read_text())
    jsonschema.validate(report, SCHEMA)
    (entry,) = report["runs"]
    assert entry["steps"] == 10 and bool(entry["reused"]) == (preset != "off")
    assert "step" not in vars(small.pipe.scheduler)
