"""What differs from one diffusers pipeline to another: 10 to 30 lines each."""

import math
from collections.abc import Sequence
from typing import Any

import torch

from ..lfcache.latent.shrink import shrink_latent
from ..lfcache.latent.trial import Trial
from .blocks import Blocks
from .hooked import unwrapped
from .schedule import Schedule


class Adapter:
    """A pipeline that nobody has described: there are no trials, and BlockCache knows no blocks.

    A subclass describes the transformer's inputs. One adapter serves one run. blocks: see Blocks. patch: as in
    Parametrization. is_known: whether the pipeline's inputs are described.
    """

    blocks: tuple[Blocks, ...] = ()
    is_known = False

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.schedule = Schedule(pipe.scheduler)
        self.patch: tuple[int, int, int] = (1, 2, 2)

    def obstacle(self) -> str | None:
        """Why no trial can be made, or None."""
        return None if self.is_known else f"{type(self.pipe).__name__} is not known well enough to shrink its inputs"

    @property
    def branches(self) -> int:
        """How many guidance branches one call of the transformer holds; asked for in the first call of a run."""
        return 1

    def latent(self, hidden: torch.Tensor) -> torch.Tensor:
        """The latents in the model's input, of all branches, (B, C, T, H, W) or as they are."""
        return self.turned(hidden)

    def turned(self, tensor: torch.Tensor) -> torch.Tensor:
        """From the pipeline's layout of latents to (B, C, T, H, W) and back."""
        return tensor

    def small(self, kwargs: dict, trial: Trial) -> dict:
        """The transformer's arguments for a trial, from those of a full call."""
        timestep = kwargs["timestep"]
        time = self.schedule.timestep(trial.sigma).to(timestep.device, timestep.dtype)
        return {
            **kwargs,
            "hidden_states": self._input(trial, kwargs["hidden_states"]),
            "timestep": time.expand(timestep.shape),
        }

    def _input(self, trial: Trial, hidden: torch.Tensor) -> torch.Tensor:
        """The model's input for a trial. hidden: that of the full call."""
        return self.turned(trial.x).to(hidden.dtype)

    @property
    def boundaries(self) -> Sequence[float]:
        """Noise levels at which the pipeline changes to another transformer."""
        return ()

    @property
    def model_name(self) -> str:
        """For the report."""
        return type(unwrapped(self.transformers()[0])).__name__

    def transformers(self) -> list[Any]:
        """The modules that the pipeline calls."""
        found = [getattr(self.pipe, name, None) for name in ("transformer", "transformer_2", "unet")]
        return [module for index, module in enumerate(found) if module is not None and module not in found[:index]]

    def transformer_at(self, level: float) -> Any:
        """The module that the pipeline calls at a noise level."""
        return self.transformers()[0]

    def weights_of(self, module: Any) -> list[float] | None:
        """The weights of the two branches while this transformer is called, if the pipeline says so."""
        return None


class WanAdapter(Adapter):
    """WanPipeline: Wan 2.1, 2.2 with two transformers, 2.2 5B with a timestep for each token."""

    blocks = (Blocks("blocks", "double_block", ("hidden_states",)),)
    is_known = True

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        self.patch = tuple(self.transformers()[0].config.patch_size)

    def small(self, kwargs: dict, trial: Trial) -> dict:
        timestep = kwargs["timestep"]
        if timestep.ndim == 2:  # one for each token
            tokens = math.prod(side // patch for side, patch in zip(trial.x.shape[2:], self.patch))
            kwargs = {**kwargs, "timestep": timestep[:, :1].expand(-1, tokens)}
        return super().small(kwargs, trial)

    @property
    def boundaries(self) -> Sequence[float]:
        ratio = self.pipe.config.get("boundary_ratio")
        return () if ratio is None or len(self.transformers()) < 2 else (ratio,)

    def transformer_at(self, level: float) -> Any:
        modules = self.transformers()
        return modules[-1] if any(level < boundary for boundary in self.boundaries) else modules[0]

    def weights_of(self, module: Any) -> list[float] | None:
        # not public: without it the rehearsal has the first transformer's scale
        scale = getattr(self.pipe, "_guidance_scale_2", None)
        return None if scale is None or module is self.transformers()[0] else [scale, 1 - scale]


class WanImageAdapter(WanAdapter):
    """WanImageToVideoPipeline: the image's latent and mask are further channels of the input."""

    def obstacle(self) -> str | None:
        if self.pipe.config.get("expand_timesteps"):
            return "this model keeps clean frames inside the noised latent"
        return super().obstacle()

    def latent(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, : self.transformers()[0].config.out_channels]

    def _input(self, trial: Trial, hidden: torch.Tensor) -> torch.Tensor:
        condition = shrink_latent(hidden[:, trial.x.shape[1] :], trial.factors, trial.patch)
        return torch.cat((trial.x.to(hidden.dtype), condition), 1)


class HunyuanAdapter(Adapter):
    """HunyuanVideoPipeline, with embedded or true guidance."""

    blocks = (
        Blocks("transformer_blocks", "double_block", ("hidden_states", "encoder_hidden_states")),
        Blocks("single_transformer_blocks", "single_block", ("hidden_states", "encoder_hidden_states")),
    )
    is_known = True

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        config = pipe.transformer.config
        self.patch = (config.patch_size_t, config.patch_size, config.patch_size)


class CogVideoXAdapter(Adapter):
    """CogVideoXPipeline: latents are (B, T, C, H, W), and both branches are in one batch."""

    blocks = (Blocks("transformer_blocks", "double_block", ("hidden_states", "encoder_hidden_states")),)
    is_known = True

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        config = pipe.transformer.config
        self.patch = (config.patch_size_t or 1, config.patch_size, config.patch_size)

    @property
    def branches(self) -> int:
        # another pipeline on the same components may call the transformer, before this one has a scale
        return 2 if getattr(self.pipe, "guidance_scale", 1) > 1 else 1

    def turned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(1, 2)

    def _input(self, trial: Trial, hidden: torch.Tensor) -> torch.Tensor:
        x = super()._input(trial, hidden)
        return torch.cat([x] * (len(hidden) // len(x)))

    def small(self, kwargs: dict, trial: Trial) -> dict:
        changed = super().small(kwargs, trial)
        if kwargs.get("image_rotary_emb") is not None:
            frames, height, width = trial.x.shape[2:]
            scale = self.pipe.vae_scale_factor_spatial
            # not public: positions for a latent of another size; where it is gone, the run does without trials
            changed["image_rotary_emb"] = self.pipe._prepare_rotary_positional_embeddings(
                height * scale, width * scale, frames, trial.x.device
            )
        return changed


ADAPTERS: dict[str, type[Adapter]] = {
    "WanPipeline": WanAdapter,
    "WanImageToVideoPipeline": WanImageAdapter,
    "WanModularPipeline": WanAdapter,
    "WanImage2VideoModularPipeline": WanImageAdapter,
    "Wan22Image2VideoModularPipeline": WanImageAdapter,
    "Wan22VaceModularPipeline": Adapter,  # it derives from WanModularPipeline, but has further inputs
    "HunyuanVideoPipeline": HunyuanAdapter,
    "CogVideoXPipeline": CogVideoXAdapter,
}


def adapter_for(pipe: Any) -> Adapter:
    """The adapter of a pipeline, by the name of its class or of a class that it derives from."""
    names = (cls.__name__ for cls in type(pipe).__mro__)
    return next((ADAPTERS[name] for name in names if name in ADAPTERS), Adapter)(pipe)
