"""The page greys out the inputs that a preset ignores, in both renderers."""

from panel_texts import LFCACHE, graph_of

# the inputs of a node that are greyed out
DISABLED = "return app.graph.getNodeById(arguments[0]).widgets.filter((w) => w.disabled).map((w) => w.name)"
SET_PRESET = """const widget = app.graph.getNodeById(arguments[0]).widgets.find((w) => w.name == 'preset');
    widget.value = arguments[1]; widget.callback(arguments[1]);"""


def test_inputs_that_the_preset_ignores_are_greyed_out(page):
    page.load(graph_of())
    for preset, ignored in (
        ("base", ["alpha", "share"]),
        ("custom", ["share"]),
        ("budget", ["alpha"]),
        ("paper", ["share"]),
        ("turbo", ["alpha", "share"]),
    ):
        page.js(SET_PRESET, LFCACHE, preset)
        assert page.js(DISABLED, LFCACHE) == ignored, preset
    page.load(graph_of(preset="custom"))
    assert page.js(DISABLED, LFCACHE) == ["share"]
    page.js(SET_PRESET, LFCACHE, "budget")
    page.call("app.graphToPrompt().then((p) => app.loadGraphData(p.workflow))")
    assert page.js(DISABLED, LFCACHE) == ["alpha"]
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
    assert page.js(DISABLED, LFCACHE) == ["alpha"]
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
