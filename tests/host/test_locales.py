"""The translations: every language has every text, English says what nodes, page and graphs say, the others do not."""

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
    *("HunyuanVideo", "Wan2.1", "Wan2.2", "VACE", "LoRA", "LoRAs", "Lightning", "lightx2v", "CausVid"),
    *("ModelSampling", "Transformer"),
    *("Raylight", "Ray", "ray_actors", "xfuser"),
    *("MODEL", "VAE", "CPU", "GPU", "GPUs", "GB", "JSON", "PSNR", "SSIM", "Ctrl", "B", "x", "alpha"),
    *("base", "turbo", "flash", "budget", "custom", "paper", "off"),  # presets
    *("cpu", "merged", "per_block", "fp8_e4m3fn", "v1", "concat", "v2", "replace"),
    *("Raylight", "Ray", "Init", "Actor", "Linux", "GPUs"),  # for several GPUs
    "models",  # the folder
}
# the names of Raylight's nodes, which are there in English only
RAYLIGHT_NODES = r"Load Diffusion Model \(Ray\)"
SCRIPTS = {
    "ja": "[\u3040-\u30ff\u4e00-\u9fff]",
    "ko": "[\uac00-\ud7a3]",
    "ru": "[\u0400-\u04ff]",
    "zh": "[\u4e00-\u9fff]",
}
# inputs whose tooltips name values: {(input,): values}
CHOICES = {
    ("trial",): set(TRIALS),
    ("reuse",): set(REUSES),
    ("reference",): {"trial", "cached"},
    ("view",): {"videos", "difference", "both"},
}
# words that are spelt alike in English and in the language
ALIKE = {
    "de": {
        *("h", "min", "s", "block", "bypass", "cache", "download", "format", "frame", "frames", "guidance", "guider"),
        *(
            "laptop",
            "latent",
            "latents",
            "node",
            "nodes",
            "noise",
            "pixel",
            "plan",
            "prompt",
            "radius",
            "sampler",
            "samples",
        ),
        *("sampling", "schedule", "seed", "tensor", "text", "trend", "video", "videos", "warm"),
    },
    "es": {"h", "min", "s", "color", "megabytes", "panel", "plan", "prompt", "tensor", "transformer", "use"},
    "fr": {
        *("h", "min", "s", "cache", "calibration", "change", "exact", "expert", "experts", "format", "fraction"),
        *("image", "latent", "latents", "mode", "pixel", "pixels", "plan", "prompt", "second", "transformer", "type"),
    },
    "zh": {"latent"},
}


def texts(language, file):
    """{path of keys: text}"""

    def walk(value, path=()):
        if isinstance(value, str):
            return {path: value}
        return {k: v for name, inner in value.items() for k, v in walk(inner, (*path, name)).items()}

    return walk(json.loads((LOCALES / language / file).read_text("utf-8")))


def words(text):
    """The words in Latin letters that may have to be translated."""
    text = re.sub(r"\]\([^)]*\)|https?://\S+|\S+\.safetensors|`[^`]*`", " ", text)  # addresses, files and code
    text = re.sub(r"(?<!\*)\*(?:\w+_\w+|FSDP|GPU|models|preset)\*(?!\*)", " ", text)  # inputs and folders, in notes
    text = re.sub(RAYLIGHT_NODES, " ", text)
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


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
@pytest.mark.parametrize("file", FILES)
def test_nothing_is_left_in_english(language, file):
    english, left = texts("en", file), []
    alike, script = ALIKE.get(language, set()), SCRIPTS.get(language, "")
    for path, text in texts(language, file).items():
        to_translate = words(english[path]) - CHOICES.get(path[-2:-1], set()) - alike
        same = {word for word in to_translate & words(text) if len(word) > 2}
        is_native = re.search(script, text) or words(text) & alike
        if same or to_translate and (text == english[path] or not is_native):
            left.append(f"{'/'.join(path)}: {text} {same or ''}")
    assert not left, "\n".join(left)


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


# text in the code of the page that users do not read as words: a node's property, classes, symbols, a node's type
NOT_READ = {"show all samplers", "precisecache-badge aside", "sigma ", "LFD ", "Note"}


def test_the_page_says_nothing_that_cannot_be_translated():
    found = []
    for file in (ROOT / "web").glob("*.js"):
        code = re.sub(r"^\s*//.*|\s// .*|.*\bconsole\..*", "", file.read_text("utf-8"), flags=re.MULTILINE)
        for literal in re.finditer(r'(\b(?:t|add)\()?(?:"([^"\n]*)"|`([^`]*)`)', code):
            is_translated, plain, template = literal.groups()
            text = plain if template is None else re.sub(r"\$\{(?:[^{}]|\{[^{}]*\})*\}", "", template)
            # several words, a word before or after a value, or a capitalized word
            if not is_translated and re.search(r"[A-Za-z]{2,} ([A-Za-z]|$)|^ [A-Za-z]{2,}|^[A-Z][a-z]+$", text):
                found.append(text)
    assert sorted({*found} - NOT_READ) == []
    assert NOT_READ <= {*found}
