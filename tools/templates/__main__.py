"""Write the shipped templates, workflows/*.json and workflows/api/*.json: python3 -m tools.templates

It asks a ComfyUI for its nodes' inputs, so it needs one (0.33 or newer). Those for several GPUs also need Raylight,
where RAYLIGHT_PATH says; without it they stay as they are. `--pictures` also draws those of the template browser,
workflows/*.jpg, in some minutes.
"""

import json
import sys
import urllib.request
from pathlib import Path

from testkit.raylight_on_cpu import why_missing
from testkit.raylight_server import RaylightServer
from tools.comfyui.locate import find_comfyui
from tools.comfyui.server import ComfyServer
from tools.templates.form.api import in_api_format
from tools.templates.form.page import in_page_format
from tools.templates.pictures import draw
from tools.templates.recipes import RECIPES, WITH_RAYLIGHT

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workflows"


def schemas_of(server):
    """What a server says about its kinds of nodes, {kind: description}."""
    with urllib.request.urlopen(f"http://{server.address}/object_info") as answer:
        return json.load(answer)


def texts(schemas, recipes=RECIPES):
    """{path: text} of every file of the templates of these recipes."""
    found = {}
    for recipe in recipes:
        graph = recipe()
        for folder, write in ((FOLDER, in_page_format), (FOLDER / "api", in_api_format)):
            found[folder / f"{graph.name}.json"] = (
                json.dumps(write(graph, schemas), indent=1, ensure_ascii=False) + "\n"
            )
    return found


def main():
    host = find_comfyui(ROOT)
    if not host:
        sys.exit("no ComfyUI was found; set COMFYUI_PATH")
    missing = why_missing()
    start = ComfyServer if missing else RaylightServer
    with start(host, ROOT / "runs" / "templates.log") as server:
        server.wait()
        recipes = RECIPES if missing else (*RECIPES, *WITH_RAYLIGHT)
        for path, text in texts(schemas_of(server), recipes).items():
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
    if missing:
        print(f"The {len(WITH_RAYLIGHT)} for several GPUs stay as they are. {missing}")
    if "--pictures" in sys.argv[1:]:
        draw_pictures()


def draw_pictures():
    for number, recipe in enumerate((*RECIPES, *WITH_RAYLIGHT)):
        graph = recipe()
        path = FOLDER / f"{graph.name}.jpg"
        draw(graph, number).save(path, quality=88)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
