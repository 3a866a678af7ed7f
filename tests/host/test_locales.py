"""The translations: every language has every text, and English says what the nodes say."""

import asyncio
import json
import re

import pytest
from PreciseCache.nodes.extension import PreciseCacheExtension
from PreciseCache.precisecache_core.lfcache.config import PRESETS, REUSES, TRIALS

from testkit.tiny_host import ROOT

LOCALES = ROOT / "locales"
LANGUAGES = ("de", "en", "es", "fr", "ja", "ko", "ru", "zh")
FILES = ("main.json", "nodeDefs.json")


def texts(language, file):
    """{path of keys: text}"""

    def walk(value, path=()):
        if isinstance(value, str):
            return {path: value}
        return {k: v for name, inner in value.items() for k, v in walk(inner, (*path, name)).items()}

    return walk(json.loads((LOCALES / language / file).read_text("utf-8")))


def test_the_folders_are_those_of_the_languages():
    assert sorted(folder.name for folder in LOCALES.iterdir()) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("file", FILES)
def test_every_language_has_every_text(language, file):
    english, mine = texts("en", file), texts(language, file)
    assert mine.keys() == english.keys()
    for path, text in mine.items():
        assert text.strip() and not set(text) & set("{}|@$"), (path, text)  # special in the page's translation
        assert sorted(re.findall(r"\d+", text)) == sorted(re.findall(r"\d+", english[path])), (path, text)
    if language != "en" and file == "nodeDefs.json":
        tooltips = [path for path in mine if path[-1] in ("tooltip", "description")]
        assert sum(mine[path] == english[path] for path in tooltips) == 0


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name, choices", [("preset", PRESETS), ("trial", TRIALS), ("reuse", REUSES)])
def test_a_tooltip_names_every_choice(language, name, choices):
    tooltip = texts(language, "nodeDefs.json")["PreciseCacheLFCache", "inputs", name, "tooltip"]
    assert [choice for choice in choices if not re.search(rf"\b{choice}\b", tooltip, re.ASCII)] == []


def test_english_says_what_the_nodes_say():
    nodes = asyncio.run(PreciseCacheExtension().get_node_list())
    expected = {}
    for node in nodes:
        schema = node.define_schema()
        expected[schema.node_id] = {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {i.id: {"name": i.id, "tooltip": i.tooltip} for i in schema.inputs},
            "outputs": {
                str(number): {"name": o.display_name or o.get_io_type(), "tooltip": o.tooltip}
                for number, o in enumerate(schema.outputs)
            },
        }
    assert json.loads((LOCALES / "en" / "nodeDefs.json").read_text("utf-8")) == expected


def test_the_translated_words_are_those_that_the_page_asks_for():
    asked = {
        word
        for file in (ROOT / "web").glob("*.js")
        for word in re.findall(r'\b(?:t|add)\("([^"]+)"', file.read_text("utf-8"))
    }
    assert {path[-1] for path in texts("en", "main.json")} == asked
