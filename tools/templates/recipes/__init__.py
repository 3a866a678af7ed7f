"""The shipped templates: a function each, which builds the graph."""

from tools.templates.recipes import compare, hunyuan_video, raylight, tiny, wan21, wan22

RECIPES = (
    tiny.demo,
    compare.tiny,
    compare.wan22,
    compare.hunyuan,
    wan21.t2v,
    wan21.i2v,
    wan21.vace,
    wan21.flf2v,
    wan22.t2v_14b,
    wan22.i2v_14b,
    wan22.t2v_5b,
    wan22.i2v_5b,
    hunyuan_video.t2v,
    hunyuan_video.i2v,
    hunyuan_video.t2v_15,
    hunyuan_video.i2v_15,
)
# of nodes that only a ComfyUI with Raylight has
WITH_RAYLIGHT = (raylight.wan21_t2v, raylight.hunyuan_t2v)
