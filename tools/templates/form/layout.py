"""Where nodes stand: columns from left to right, in the order of the wires, each filled downwards, and two notes."""

from dataclasses import dataclass

GAP = 18  # between columns' frames
MARGIN = 8  # of a frame around its nodes
BELOW = 14  # between a node and the next one's title
FOOTER = 16  # more of it below nodes of these kinds, where the page hangs "Show advanced inputs" and errors
HAS_FOOTER = {
    "CLIPLoader", "CLIPVisionLoader", "DualCLIPLoader", "EasyCache", "HunyuanImageToVideo", "KSamplerAdvanced",
    "LoadImage", "PreciseCacheBlockCache", "PreciseCacheLFCache", "PreciseCacheLFCacheRay",
    "RayUNETLoader", "TextEncodeHunyuanVideo_ImageToVideo", "UNETLoader", "VAEDecodeTiled", "VAELoader",
}  # fmt: skip
TITLE = 30  # pixels of a node's title bar, which is above its position
HEADING = 44  # of a frame, above its first node's title
NOTE_WIDTH, NOTE_HEIGHT = 275, 220  # of notes beside the columns, and above them
VIEW = (1600, 857)  # pixels that the page has for a graph in a window of 1600 x 1000
SHARE = 0.75  # of the view that the page fills when a template opens

# (width, height) of a kind's content: the larger of both renderers
SIZES = {
    "BasicGuider": (235, 54),
    "BasicScheduler": (235, 118),
    "CFGGuider": (235, 112),
    "CLIPLoader": (230, 114),
    "CLIPTextEncode": (250, 110),
    "CLIPVisionEncode": (250, 82),
    "CLIPVisionLoader": (230, 86),
    "ConditioningZeroOut": (250, 54),
    "CreateVideo": (260, 110),
    "DualCLIPLoader": (230, 142),
    "EasyCache": (240, 132),
    "EmptyHunyuanLatentVideo": (250, 146),
    "EmptyHunyuanVideo15Latent": (250, 146),
    "FluxGuidance": (250, 62),
    "HunyuanImageToVideo": (250, 210),
    "HunyuanVideo15ImageToVideo": (250, 226),
    "KSampler": (235, 262),
    "KSamplerAdvanced": (253, 334),
    "KSamplerSelect": (235, 62),
    "LoadImage": (230, 350),
    "ModelSamplingSD3": (240, 62),
    "PreciseCacheBlockCache": (240, 160),
    "PreciseCacheCompare": (320, 300),
    "PreciseCacheLFCache": (240, 200),
    "PreciseCacheLFCacheRay": (240, 200),
    "PreciseCacheStats": (320, 345),
    "PreciseCacheStatsRay": (320, 345),
    "PreciseCacheTinyModel": (260, 202),
    "PreviewAny": (260, 140),
    "PreviewImage": (320, 260),
    "RandomNoise": (235, 90),
    "RayInitializer": (250, 470),
    "RayModelSamplingSD3": (240, 92),
    "RayUNETLoader": (250, 152),
    "SamplerCustomAdvanced": (235, 120),
    "SaveVideo": (260, 260),
    "TextEncodeHunyuanVideo_ImageToVideo": (250, 150),
    "TrimVideoLatent": (260, 62),
    "UNETLoader": (230, 86),
    "VAEDecode": (260, 54),
    "VAEDecodeTiled": (260, 150),
    "VAELoader": (230, 86),
    "Wan22ImageToVideoLatent": (250, 166),
    "WanFirstLastFrameToVideo": (250, 266),
    "WanImageToVideo": (250, 226),
    "WanVaceToVideo": (250, 274),
    "XFuserKSamplerAdvanced": (253, 396),
}


@dataclass(frozen=True)
class Box:
    """A rectangle in the graph's own pixels; a node's does not include its title bar, which is above it."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """Boxes of the nodes by their keys, of the columns' frames and of the two notes."""

    nodes: dict
    frames: list
    notes: list

    def bounds(self):
        """The Box around everything, title bars included."""
        boxes = [*self.frames, *(Box(n.x, n.y - TITLE, n.width, n.height + TITLE) for n in self.notes)]
        x, y = min(box.x for box in boxes), min(box.y for box in boxes)
        right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
        return Box(x, y, right - x, bottom - y)

    def scale(self):
        """The zoom at which the page opens it as a template."""
        bounds = self.bounds()
        return SHARE * min(VIEW[0] / bounds.width, VIEW[1] / bounds.height)


def place(graph):
    """The Layout of a graph: with the notes above or beside the columns, whichever is larger on the screen."""
    nodes, frames = _columns(graph)
    width = frames[-1].x + frames[-1].width - frames[0].x
    height = max(frame.height for frame in frames)
    top, left = frames[0].y, frames[0].x
    half = (width - GAP) // 2
    above = [Box(left + i * (half + GAP), top - GAP - NOTE_HEIGHT, half, NOTE_HEIGHT) for i in range(2)]
    x = left - GAP - NOTE_WIDTH
    lengths = [len("\n\n".join(texts)) for texts in (graph.about, graph.usage)]
    room = height - 2 * TITLE - GAP
    first = round(room * lengths[0] / sum(lengths))
    beside = [
        Box(x, top + TITLE, NOTE_WIDTH, first),
        Box(x, top + TITLE + first + GAP + TITLE, NOTE_WIDTH, room - first),
    ]
    layouts = [Layout(nodes, frames, notes) for notes in (above, beside)]
    return max(layouts, key=Layout.scale)


def _columns(graph):
    """{key: Box} of the nodes and the frames of the columns, all as high as the highest."""
    boxes, frames, x = {}, [], 0
    for names in graph.columns:
        nodes = [node for node in graph.nodes if node.column in names]
        width = max(SIZES[node.kind][0] for node in nodes if not node.is_collapsed)
        y = 0
        for node in nodes:
            height = 0 if node.is_collapsed else SIZES[node.kind][1]
            boxes[node.key] = Box(x, y, width, height)
            y += height + BELOW + TITLE
            if node.kind in HAS_FOOTER and not node.is_collapsed:
                y += FOOTER
        frames.append(Box(x - MARGIN, -TITLE - HEADING, width + 2 * MARGIN, y + HEADING))
        x += width + 2 * MARGIN + GAP
    height = max(frame.height for frame in frames)
    return boxes, [Box(frame.x, frame.y, frame.width, height) for frame in frames]
