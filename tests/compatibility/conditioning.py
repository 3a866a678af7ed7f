"""What conditioning can carry: images, controls, regions, times, LoRAs."""

from types import SimpleNamespace

import comfy.controlnet
import comfy.hooks
import comfy.sample
import torch

from compatibility.cell import UNTRIED, Cell, Skip
from compatibility.stock import stock, stock_all
from testkit.architectures import ARCHITECTURES, Unsupported, conditioning, load

STEPS = 16
# with this size, the nodes for Wan give a latent of 2 x 8 x 8
SIZE = {"width": 64, "height": 64, "length": 5, "batch_size": 1}


def prompts(**entries):
    """A cell's run on the tiny model: a second prompt, with these entries, beside the first."""

    def run(bench, attach):
        other = [
            [tensor, {**values, **entries}] for tensor, values in bench.tiny.conditioning("triangle", "blue", "right")
        ]
        return sample(attach(bench.model), bench.positive + other, bench.negative, bench.noise())

    return run


def sample(model, positive, negative, noise, latent=None, mask=None, cfg=4.0):
    latent = torch.zeros_like(noise) if latent is None else latent
    return comfy.sample.sample(
        model,
        noise,
        STEPS,
        cfg,
        "euler",
        "simple",
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=0,
        noise_mask=mask,
    )


def architecture(name):
    """A model's patcher. Raises Skip where this host does not know it."""
    try:
        return load(name)
    except Unsupported as reason:
        raise Skip(str(reason)) from reason


def given(name, make):
    """A cell's run on random weights. make(bench, positive, negative) returns both prompts and, optionally,
    more arguments for `sample` as a dictionary."""

    def run(bench, attach):
        model = architecture(name)
        positive, negative, *more = make(bench, conditioning(name, 1), conditioning(name, 2))
        shape = more[0]["latent"].shape if more and "latent" in more[0] else ARCHITECTURES[name].latent
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        return sample(attach(model), positive, negative, noise, **(more[0] if more else {}))

    return run


def with_values(*conds, **values):
    """Copies of CONDITIONINGs with these values added."""
    return [[[tensor, {**own, **values}] for tensor, own in cond] for cond in conds]


def image(frames=1, seed=5):
    return torch.rand(frames, 64, 64, 3, generator=torch.Generator().manual_seed(seed))


def clip_vision():
    return SimpleNamespace(
        penultimate_hidden_states=torch.randn(1, 257, 1280, generator=torch.Generator().manual_seed(6))
    )


def wan(node, **inputs):
    """A `make` for `given`: one of the host's nodes for Wan, with the tiny model's VAE."""

    def make(bench, positive, negative):
        out = stock_all(
            "comfy_extras.nodes_wan", node, positive=positive, negative=negative, vae=bench.vae, **SIZE, **inputs
        )
        return out[0], out[1], {"latent": out[2]["samples"]}

    return make


def phantom(bench, positive, negative):
    out = stock_all(
        "comfy_extras.nodes_wan",
        "WanPhantomSubjectToVideo",
        positive=positive,
        negative=negative,
        vae=bench.vae,
        images=image(2),
        **SIZE,
    )
    return out[0], out[1], {"latent": out[3]["samples"]}


def reference(shape, **values):
    """A `make` for `given`: a reference latent."""

    def make(bench, positive, negative):
        latent = torch.randn(shape, generator=torch.Generator().manual_seed(8))
        return with_values(positive, negative, reference_latents=[latent], **values)

    return make


def hunyuan_image(kind):
    def make(bench, positive, negative):
        positive, latent = stock_all(
            "comfy_extras.nodes_hunyuan",
            "HunyuanImageToVideo",
            positive=positive,
            vae=bench.vae,
            guidance_type=kind,
            start_image=image(),
            **SIZE,
        )
        more = {"latent": latent["samples"]}
        if "noise_mask" in latent:
            more["mask"] = latent["noise_mask"]
        return positive, negative, more

    return make


def first_frame(channels, frames=3):
    """A `make` for `given`: a clean first frame inside the latent, as Wan2.2 5B and LTXV take it."""

    def make(bench, positive, negative):
        latent = torch.zeros(1, channels, frames, 8, 8)
        latent[:, :, :1] = torch.randn(1, channels, 1, 8, 8, generator=torch.Generator().manual_seed(8))
        mask = torch.ones(1, 1, frames, 8, 8)
        mask[:, :, :1] = 0
        return positive, negative, {"latent": latent, "mask": mask}

    return make


class PlainControl(comfy.controlnet.ControlBase):
    """A ControlNet whose output HunyuanVideo's and Flux's blocks add to the tokens."""

    def __init__(self, tokens, width):
        super().__init__()
        self.residual = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(9)) * 0.05

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        if self.timestep_range and not self.timestep_range[1] <= t[0] <= self.timestep_range[0]:
            return None
        return {"input": [self.residual.expand(len(x_noisy), -1, -1)] * 2, "output": []}

    def copy(self):
        return self


def controlled(tokens, start=0.0, end=1.0):
    def make(bench, positive, negative):
        control = PlainControl(tokens, 128)
        control.timestep_percent_range = (start, end)
        return with_values(positive, negative, control=control, control_apply_to_uncond=False)

    return make


def lora_patches(bench):
    """A LoRA's patches for the attention of two of the tiny model's blocks."""
    generator, weights = torch.Generator().manual_seed(10), bench.model.model.state_dict()
    keys = [f"diffusion_model.blocks.{i}.self_attn.{name}.weight" for i in (2, 9) for name in "qkv"]
    return {key: ("diff", (torch.randn(weights[key].shape, generator=generator) * 0.02,)) for key in keys}


def with_lora(bench, attach):
    model = bench.model.clone()
    model.add_patches(lora_patches(bench), 0.5)
    return sample(attach(model), bench.positive, bench.negative, bench.noise())


def hooked(*keyframes):
    """A cell's run: a LoRA as a hook on the positive prompt; keyframes change its strength."""

    def run(bench, attach):
        group = comfy.hooks.HookGroup()
        hook = comfy.hooks.WeightHook(strength_model=1.0)
        hook.weights = lora_patches(bench)
        hook.need_weight_init = False
        group.add(hook)
        if keyframes:
            frames = comfy.hooks.HookKeyframeGroup()
            for strength, start in keyframes:
                frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
            group.set_keyframes_on_hooks(frames)
        (positive,) = with_values(bench.positive, hooks=group)
        return sample(attach(bench.model), positive, bench.negative, bench.noise())

    return run


def inpainted(bench, attach):
    latent = bench.noise(seed=5) * 0.5
    mask = torch.zeros(1, 1, 2, 8, 8)
    mask[..., 4:] = 1
    return sample(attach(bench.model), bench.positive, bench.negative, bench.noise(), latent, mask)


def combined(node, **inputs):
    """A cell's run: two prompts joined by one of the host's nodes."""

    def run(bench, attach):
        other = bench.tiny.conditioning("triangle", "blue", "right")
        names = {"ConditioningCombine": ("conditioning_1", "conditioning_2")}.get(
            node, ("conditioning_to", "conditioning_from")
        )
        positive = stock("nodes", node, **dict(zip(names, (bench.positive, other))), **inputs)
        return sample(attach(bench.model), positive, bench.negative, bench.noise())

    return run


def cells():
    def trained(name, run, **more):
        return Cell("Conditioning", name, run, **more)

    def random(name, model, make, **more):
        return Cell("Conditioning", f"{name} ({model})", given(model, make), **{"bound": None, "alpha": 10.0, **more})

    half = torch.zeros(1, 64, 64)
    half[..., 32:] = 1
    untried = {"verdict": UNTRIED}
    return [
        # two prompts at once are ambiguous to the model: a small change can lead to another clip
        trained("two prompts combined", combined("ConditioningCombine"), bound=0.8),
        trained("two prompts concatenated", combined("ConditioningConcat")),
        trained("two prompts averaged", combined("ConditioningAverage", conditioning_to_strength=0.6)),
        trained("area", prompts(area=(8, 8, 0, 4), strength=0.7)),
        trained("area in percent", prompts(area=("percentage", 1.0, 1.0, 0.5, 0.0, 0.0, 0.5), strength=0.7)),
        trained("mask", prompts(mask=half, mask_strength=1.0)),
        trained("timestep range, early", prompts(start_percent=0.0, end_percent=0.4), bound=0.5),
        trained("timestep range, late", prompts(start_percent=0.4, end_percent=1.0)),
        trained("inpainting mask", inpainted),
        trained("LoRA", with_lora),
        trained("LoRA hook", hooked(), says="LoRA hooks", **untried),
        trained("LoRA hook with keyframes", hooked((1.0, 0.0), (0.3, 0.3), (0.0, 0.7)), says="LoRA hooks", **untried),
        random("start image", "wan2.1 i2v", wan("WanImageToVideo", start_image=image(), clip_vision_output=None)),
        random(
            "start image, CLIP vision",
            "wan2.1 i2v",
            wan("WanImageToVideo", start_image=image(), clip_vision_output=clip_vision()),
        ),
        random(
            "first and last frame",
            "wan2.1 i2v",
            wan("WanFirstLastFrameToVideo", start_image=image(), end_image=image(seed=7)),
        ),
        random("inpaint model", "wan2.1 i2v", wan("WanFunInpaintToVideo", start_image=image(), end_image=image())),
        random("VACE, control video", "wan2.1 vace", wan("WanVaceToVideo", strength=1.0, control_video=image(5))),
        random(
            "VACE, reference and mask",
            "wan2.1 vace",
            wan(
                "WanVaceToVideo",
                strength=0.8,
                control_video=image(5),
                reference_image=image(seed=7),
                control_masks=half.expand(5, -1, -1),
            ),
        ),
        random(
            "Fun control video",
            "wan2.1 fun control",
            wan("WanFunControlToVideo", control_video=image(5), start_image=image(seed=7)),
        ),
        random(
            "camera",
            "wan2.1 camera",
            wan(
                "WanCameraImageToVideo",
                start_image=image(),
                camera_conditions=torch.randn(1, 24, 2, 64, 64, generator=torch.Generator().manual_seed(4)),
            ),
            says="camera_conditions",
            **untried,
        ),
        random("subject images", "wan2.1 t2v", phantom),
        random("clean first frame", "wan2.2 5b", first_frame(48), says="clean frames", **untried),
        random("reference latent", "flux", reference((1, 16, 16, 16))),
        random("reference latent of another size", "flux", reference((1, 16, 12, 20))),
        random("start image, concatenated", "hunyuanvideo i2v", hunyuan_image("v1 (concat)")),
        random("start image, replaced", "hunyuanvideo", hunyuan_image("v2 (replace)"), says="clean frames", **untried),
        random("start image, as reference", "hunyuanvideo", hunyuan_image("custom")),
        random("ControlNet", "hunyuanvideo", controlled(32)),
        random("ControlNet in a part of the schedule", "hunyuanvideo", controlled(32, 0.2, 0.6)),
        random("ControlNet", "flux", controlled(64)),
        random("clean first frame", "ltxv", first_frame(128), says="clean frames", **untried),
    ]
