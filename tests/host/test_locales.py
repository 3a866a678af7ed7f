"""The translations: every language has every text, and English says what the nodes and the shipped graphs say."""

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
PAGE, GRAPHS = "PreciseCache", "PreciseCacheGraphs"  # the sections of main.json

# words that stay English in every language: names, abbreviations and values
NAMES = {
    *("PreciseCache", "LFCache", "BlockCache", "EasyCache", "LFD", "ComfyUI"),
    *("HunyuanVideo", "Wan2.1", "Wan2.2", "LoRA", "LoRAs", "Lightning", "CausVid"),
    *("CFGGuider", "BasicGuider", "ModelSampling", "CLIP", "Transformer"),
    *("MODEL", "VAE", "CPU", "GPU", "JSON", "PSNR", "SSIM", "README", "Ctrl", "B", "x", "alpha"),
    *("base", "turbo", "flash", "budget", "custom", "paper", "off"),  # presets
    *("cpu", "merged", "per_block", "trial_agreement"),
}
PHRASES = ("How it compares",)  # headings of pages that are in English only


def texts(language, file):
    """{path of keys: text}"""

    def walk(value, path=()):
        if isinstance(value, str):
            return {path: value}
        return {k: v for name, inner in value.items() for k, v in walk(inner, (*path, name)).items()}

    return walk(json.loads((LOCALES / language / file).read_text("utf-8")))


def words(text):
    """The words in Latin letters that may have to be translated."""
    for phrase in PHRASES:
        text = text.replace(phrase, "")
    text = re.sub(r"\]\([^)]*\)|https?://\S+|\S+\.safetensors|`[^`]*`", " ", text)  # addresses, files and code
    found = {word.rstrip(".") for word in re.findall(r"\b[A-Za-z][\w.]*", text, re.ASCII)}
    return {word.lower() for word in found - NAMES}


def graph_texts():
    """The titles and the lines of the notes in the shipped graphs."""

    def of_graph(graph):
        for item in [*graph["nodes"], *(graph.get("groups") or ())]:
            yield item.get("title")
            if item.get("type") in ("MarkdownNote", "Note"):
                yield from item["widgets_values"][0].split("\n")

    for file in (ROOT / "workflows").glob("*.json"):
        graph = json.loads(file.read_text("utf-8"))
        for part in (graph, *((graph.get("definitions") or {}).get("subgraphs") or ())):
            yield from filter(None, of_graph(part))


def test_the_folders_are_those_of_the_languages():
    assert sorted(folder.name for folder in LOCALES.iterdir()) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("file", FILES)
def test_every_language_has_every_text(language, file):
    english, mine = texts("en", file), texts(language, file)
    # titles that are names and lines of links are in English only
    names = {path for path, text in english.items() if path[0] == GRAPHS and not words(text) and language != "en"}
    assert mine.keys() == english.keys() - names
    for path, text in mine.items():
        assert text.strip(), path
        if path[0] != GRAPHS:
            assert not set(text) & set("{}|@$"), (path, text)  # special in the page's translation
        assert sorted(re.findall(r"\d+", text)) == sorted(re.findall(r"\d+", english[path])), (path, text)


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


def test_english_says_what_the_shipped_graphs_say():
    mine = {path[1]: text for path, text in texts("en", "main.json").items() if path[0] == GRAPHS}
    assert mine == {text: text for text in mine}
    shipped = set(graph_texts())
    assert (sorted(shipped - mine.keys()), sorted(mine.keys() - shipped)) == ([], []), "(missing, in no graph)"


def test_the_translated_words_are_those_that_the_page_asks_for():
    asked = {
        word
        for file in (ROOT / "web").glob("*.js")
        for word in re.findall(r'\b(?:t|add)\("([^"]+)"', file.read_text("utf-8"))
    }
    assert {path[1] for path in texts("en", "main.json") if path[0] == PAGE} == asked
