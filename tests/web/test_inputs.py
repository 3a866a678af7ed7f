"""The page greys out the inputs that a preset ignores, in both renderers."""

from panel_texts import LFCACHE, graph_of

# the inputs of a node that are greyed out
DISABLED = "return app.graph.getNodeById(arguments[0]).widgets.filter((w) => w.disabled).map((w) => w.name)"
SET_PRESET = """const widget = app.graph.getNodeById(arguments[0]).widgets.find((w) => w.name == 'preset');
    widget.value = arguments[1]; widget.callback(arguments[1]);"""


LABEL = """return app.graph.getNodeById(arguments[0]).widgets.find((w) => w.name == arguments[1]).label"""


def test_inputs_that_the_preset_ignores_are_greyed_out_and_say_what_is_in_force(page):
    page.load(graph_of())
    ours = ["warmup", "start_percent", "end_percent", "trial", "reference", "reuse", "factor_t", "factor_hw", "cutoff"]
    for preset, ignored in (
        ("base", ["alpha", "share", "warmup"]),
        ("custom", ["share"]),
        ("budget", ["alpha", "warmup"]),
        ("paper", ["share", *ours]),
        ("turbo", ["alpha", "share", "warmup"]),
        ("off", ["alpha", "share", *ours, "cache_device"]),
    ):
        page.js(SET_PRESET, LFCACHE, preset)
        assert page.js(DISABLED, LFCACHE) == ignored, preset
    for preset, name, label in (
        ("base", "alpha", "alpha (not used)"),
        ("base", "share", "share (9 + 7 %)"),
        ("paper", "reuse", "reuse (prediction)"),
        ("paper", "warmup", "warmup (3)"),
        ("custom", "alpha", "alpha"),
    ):
        page.js(SET_PRESET, LFCACHE, preset)
        assert page.js(LABEL, LFCACHE, name) == label, preset
    page.load(graph_of(preset="custom"))
    assert page.js(DISABLED, LFCACHE) == ["share"]
    page.js(SET_PRESET, LFCACHE, "budget")
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow)).then(() => true)")
    assert page.js(DISABLED, LFCACHE) == ["alpha", "warmup"]
    # a linked preset may be any
    page.js(
        """const node = app.graph.getNodeById(arguments[0]), other = LiteGraph.createNode('PrimitiveNode');
        app.graph.add(other);
        window.source = other;
        other.connect(0, node, node.inputs.findIndex((input) => input.name == 'preset'));""",
        LFCACHE,
    )
    assert page.js(DISABLED, LFCACHE) == []
    page.js("window.source.disconnectOutput(0)")
    assert page.js(DISABLED, LFCACHE) == ["alpha", "warmup"]
    page.picture("greyed_canvas")


def test_vue_greys_out_what_the_preset_ignores_and_follows_a_choice(page):
    page.set_setting("Comfy.VueNodes.Enabled", True)
    page.open()
    page.load(graph_of(preset="budget"))
    # whether the fields of alpha and share are disabled; the advanced inputs are hidden
    fields = """`${[...document.querySelectorAll(`[data-node-id="${a[0]}"] input[role=spinbutton]`)]
        .map((field) => field.disabled)}`"""
    page.wait(f"{fields} === 'true,false'", LFCACHE)
    page.picture("greyed_vue")
    page.browser.find_element("css selector", f"[data-node-id='{LFCACHE}'] [aria-label=preset]").click()
    page.wait("document.querySelector('[role=option]')")
    page.js("""[...document.querySelectorAll('[role=option]')].find((e) => e.textContent.trim() == 'custom').click()""")
    page.wait(f"{fields} === 'false,true'", LFCACHE)


# {name: whether the classic renderer shows it} of a node's widgets, and the node's height
SHOWN = """const node = app.graph.getNodeById(arguments[0]);
    return [Object.fromEntries(node.widgets.map((w) => [w.name, node.isWidgetVisible(w)])), node.size[1]];"""
PRESS = """app.graph.getNodeById(arguments[0]).widgets.find((w) => w.name == 'precisecache_advanced').callback()"""


def test_the_classic_renderer_folds_advanced_inputs_away_until_the_button_is_pressed(page):
    page.load(graph_of(cutoff=0.3))
    shown, height = page.js(SHOWN, LFCACHE)
    assert {name for name, is_shown in shown.items() if is_shown} == {
        "preset", "alpha", "share", "precisecache_advanced",
    }  # fmt: skip
    page.picture("folded_canvas")
    page.js(PRESS, LFCACHE)
    shown, opened = page.js(SHOWN, LFCACHE)
    assert all(shown.values()) and opened > height + 150
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow)).then(() => true)")
    assert all(page.js(SHOWN, LFCACHE)[0].values())  # open as it was saved
    prompt = page.call("app.graphToPrompt()")["output"][LFCACHE]
    assert prompt["inputs"]["cutoff"] == 0.3 and "precisecache_advanced" not in prompt["inputs"]
    page.js(PRESS, LFCACHE)
    assert page.js(SHOWN, LFCACHE)[1] == height


def test_an_advanced_input_that_is_linked_stays_in_sight(page):
    page.load(graph_of())
    page.js(
        """const node = app.graph.getNodeById(arguments[0]), other = LiteGraph.createNode('PrimitiveNode');
        app.graph.add(other);
        other.connect(0, node, node.inputs.findIndex((input) => input.name == 'factor_t'));""",
        LFCACHE,
    )
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow)).then(() => true)")
    assert page.js(SHOWN, LFCACHE)[0]["factor_t"]


def test_advanced_inputs_stay_open_where_the_user_wants_them_always(page):
    page.set_setting("Comfy.Node.AlwaysShowAdvancedWidgets", True)
    page.open()
    page.load(graph_of())
    shown, _ = page.js(SHOWN, LFCACHE)
    page.set_setting("Comfy.Node.AlwaysShowAdvancedWidgets", False)
    assert all(shown.values()) and "precisecache_advanced" not in shown
