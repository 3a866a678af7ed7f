"""What a node has on the page: slots for links and widgets with values, from the server's description of its kind."""

from dataclasses import dataclass

from tools.templates.form.graph import Output

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")
UPLOADS = ("image_upload", "video_upload")


@dataclass(frozen=True)
class Slot:
    """An input of a node: a slot, a widget, or a widget that a link has made a slot of."""

    name: str
    type: str
    is_optional: bool
    is_widget: bool
    link: Output | None
    value: object = None  # of the widget
    added: tuple = ()  # what the page keeps behind the value, for widgets that it adds by itself


def slots_of(node, schema):
    """The Slots of a node, in the order of the page. schema: of its kind, from the server's /object_info.

    Raises ValueError for an input that the kind does not have, or an output that is not linked and must be.
    """
    slots = [
        slot
        for group in ("required", "optional")
        for name, spec in schema["input"].get(group, {}).items()
        for slot in _slots(node, name, spec, group == "optional")
    ]
    unknown = set(node.inputs) - {slot.name for slot in slots}
    missing = [s.name for s in slots if not (s.is_optional or s.is_widget or s.link)]
    if unknown or missing:
        raise ValueError(f"{node.kind}: unknown inputs {sorted(unknown)}, inputs without a link {missing}")
    return slots


def _slots(node, name, spec, is_optional):
    kind = "COMBO" if isinstance(spec[0], list) else spec[0]
    options = spec[1] if len(spec) > 1 else {}
    is_widget = kind in WIDGETS and not options.get("forceInput")
    given = node.inputs.get(name)
    link = given if isinstance(given, Output) else None
    value = _default(spec, options) if link or given is None else given
    added = ()
    if options.get("control_after_generate"):
        added = ("fixed",)
    elif any(options.get(upload) for upload in UPLOADS):
        added = ("image",)
    yield Slot(name, kind, is_optional, is_widget, link, value if is_widget else None, added)
    if kind == "COMFY_DYNAMICCOMBO_V3":  # the chosen option brings widgets of its own
        (chosen,) = (option for option in options["options"] if option["key"] == value)
        for group in ("required", "optional"):
            for part, inner in chosen["inputs"].get(group, {}).items():
                yield from _slots(node, f"{name}.{part}", inner, is_optional)


def _default(spec, options):
    choices = spec[0] if isinstance(spec[0], list) else options.get("options") or [None]
    return options.get("default", choices[0] if choices else None)
