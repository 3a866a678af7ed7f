"""What differs from one diffusers pipeline to another: 10 to 30 lines each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..lfcache.latent.parametrization import Parametrization
from ..lfcache.latent.shrink import shrink_latent
from ..lfcache.latent.trial import FLOW, VARIANCE_PRESERVING, Trial

# the largest noise level of a model that preserves the variance: some schedules begin at infinity
LARGEST = 4096.0


@dataclass(frozen=True)
class Blocks:
    """Blocks that BlockCache may skip: their attribute, the kind of their keys, the streams they take and return."""

    attribute: str
    kind: str
    streams: tuple[str, ...]


class Adapter:
    """A pipeline that nobody has described: what its scheduler says is true, and there are no trials.

    A subclass describes the transformer's inputs. blocks: see Blocks. patch: as in Parametrization.
    """

    blocks: tuple[Blocks, ...] = ()
    patch = (1, 2, 2)
    has_trials = False

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def obstacle(self) -> str | None:
        """Why no trial can be made, or None."""
        return None if self.has_trials else f"{type(self.pipe).__name__} is not known well enough to shrink its inputs"

    # --- the noise schedule ---

    @property
    def scheduler(self) -> Any:
        return self.pipe.scheduler

    @property
    def is_flow(self) -> bool:
        """Whether x = (1 - sigma) z + sigma n; otherwise the variance is preserved."""
        config = self.scheduler.config
        is_of_flow = type(self.scheduler).__name__.startswith("FlowMatch")
        return is_of_flow or config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"

    def parametrization(self) -> Parametrization:
        """Of the model, as its scheduler understands its output."""
        if self.is_flow:
            return Parametrization(_flow, FLOW, sigma_min=1e-3, patch=self.patch)
        affine = _velocity if self.scheduler.config.get("prediction_type") == "v_prediction" else _eps
        return Parametrization(affine, VARIANCE_PRESERVING, sigma_min=1e-3, patch=self.patch)

    def levels(self) -> list[float]:
        """The noise levels of the scheduler's steps, with the one at which the run ends."""
        steps = len(self.scheduler.timesteps)
        if self.is_flow:
            return self.scheduler.sigmas[: steps + 1].float().tolist()
        return [*self._levels_of(self.scheduler.timesteps), 0.0]

    def step(self) -> int | None:
        """The number of the scheduler's next step; None if it does not say."""
        index = getattr(self.scheduler, "step_index", None)
        return getattr(self.scheduler, "begin_index", None) if index is None else index

    @property
    def is_scaled(self) -> bool:
        """Whether the scheduler's latent is not what the model gets."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0)) != 1.0

    def _levels_of(self, timesteps: torch.Tensor) -> list[float]:
        kept = self.scheduler.alphas_cumprod[timesteps.long().cpu()].double()
        return ((1 - kept) / kept.clamp_min(1e-12)).sqrt().clamp_max(LARGEST).tolist()

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """What the model takes for a noise level, 0-dim."""
        if self.is_flow:
            return sigma * self.scheduler.config.num_train_timesteps
        table = ((1 - self.scheduler.alphas_cumprod) / self.scheduler.alphas_cumprod.clamp_min(1e-12)).sqrt()
        return torch.searchsorted(table.to(sigma.device, sigma.dtype).contiguous(), sigma)

    # --- the transformer ---

    def branches(self) -> int:
        """How many guidance branches one call of the transformer holds."""
        return 1

    def latent(self, hidden: torch.Tensor) -> torch.Tensor:
        """The latent of one branch in the model's input, (B, C, T, H, W) or as it is."""
        return self.turned(hidden.chunk(self.branches())[0])

    def turned(self, tensor: torch.Tensor) -> torch.Tensor:
        """From the pipeline's layout of latents to (B, C, T, H, W) and back."""
        return tensor

    def small(self, kwargs: dict, trial: Trial) -> dict:
        """The transformer's arguments for a trial, from those of a full call."""
        raise NotImplementedError

    def boundaries(self) -> Sequence[float]:
        """Noise levels at which the pipeline changes to another transformer."""
        return ()

    def transformers(self) -> list[Any]:
        """The modules that the pipeline calls."""
        found = [getattr(self.pipe, name, None) for name in ("transformer", "transformer_2", "unet")]
        return [module for module in found if module is not None]

    def transformer_at(self, level: float) -> Any:
        """The module that the pipeline calls at a noise level."""
        return self.transformers()[0]


class WanAdapter(Adapter):
    """WanPipeline: Wan 2.1, 2.2 with two transformers, 2.2 5B with a timestep for each token."""

    blocks = (Blocks("blocks", "double_block", ("hidden_states",)),)
    has_trials = True

    def small(self, kwargs: dict, trial: Trial) -> dict:
        hidden, timestep = kwargs["hidden_states"], kwargs["timestep"]
        frames, height, width = trial.x.shape[2:]
        tokens = (frames, height // self.patch[1], width // self.patch[2])
        shape = (len(hidden), math.prod(tokens)) if timestep.ndim == 2 else (len(hidden),)
        x = self._input(trial, hidden)
        time = self.timestep(trial.sigma).to(timestep.device, timestep.dtype)
        return {**kwargs, "hidden_states": x, "timestep": time.expand(shape)}

    def _input(self, trial: Trial, hidden: torch.Tensor) -> torch.Tensor:
        return trial.x.to(hidden.dtype)

    def boundaries(self) -> Sequence[float]:
        ratio = self.pipe.config.get("boundary_ratio")
        return () if ratio is None else (ratio,)

    def transformer_at(self, level: float) -> Any:
        modules = self.transformers()
        return modules[-1] if any(level < boundary for boundary in self.boundaries()) else modules[0]


class WanImageAdapter(WanAdapter):
    """WanImageToVideoPipeline: the image's latent and mask are further channels of the input."""

    def obstacle(self) -> str | None:
        if self.pipe.config.get("expand_timesteps"):
            return "this model keeps clean frames inside the noised latent"
        return super().obstacle()

    def latent(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden[:, : self.pipe.transformer.config.out_channels]

    def _input(self, trial: Trial, hidden: torch.Tensor) -> torch.Tensor:
        condition = shrink_latent(hidden[:, trial.x.shape[1] :], trial.factors, trial.patch)
        return torch.cat((trial.x.to(hidden.dtype), condition), 1)


class HunyuanAdapter(Adapter):
    """HunyuanVideoPipeline, with embedded or true guidance."""

    blocks = (
        Blocks("transformer_blocks", "double_block", ("hidden_states", "encoder_hidden_states")),
        Blocks("single_transformer_blocks", "single_block", ("hidden_states", "encoder_hidden_states")),
    )
    has_trials = True

    def small(self, kwargs: dict, trial: Trial) -> dict:
        hidden, timestep = kwargs["hidden_states"], kwargs["timestep"]
        time = self.timestep(trial.sigma).to(timestep.device, timestep.dtype)
        return {**kwargs, "hidden_states": trial.x.to(hidden.dtype), "timestep": time.expand(timestep.shape)}


class CogVideoXAdapter(Adapter):
    """CogVideoXPipeline: latents are (B, T, C, H, W), and both branches are in one batch."""

    blocks = (Blocks("transformer_blocks", "double_block", ("hidden_states", "encoder_hidden_states")),)
    has_trials = True

    def __init__(self, pipe: Any) -> None:
        super().__init__(pipe)
        config = pipe.transformer.config
        self.patch = (config.get("patch_size_t") or 1, config.patch_size, config.patch_size)

    def branches(self) -> int:
        return 2 if self.pipe.do_classifier_free_guidance else 1

    def turned(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.transpose(1, 2)

    def small(self, kwargs: dict, trial: Trial) -> dict:
        hidden, timestep = kwargs["hidden_states"], kwargs["timestep"]
        x = trial.x.transpose(1, 2).to(hidden.dtype)
        changed = {
            "hidden_states": torch.cat([x] * self.branches()),
            "timestep": self.timestep(trial.sigma).to(timestep.device, timestep.dtype).expand(timestep.shape),
        }
        if kwargs.get("image_rotary_emb") is not None:
            # not public: positions for a latent of another size; where it is gone, the run does without trials
            scale = self.pipe.vae_scale_factor_spatial
            height, width = (side * scale for side in x.shape[-2:])
            changed["image_rotary_emb"] = self.pipe._prepare_rotary_positional_embeddings(
                height, width, x.shape[1], hidden.device
            )
        return {**kwargs, **changed}


ADAPTERS: dict[str, type[Adapter]] = {
    "WanPipeline": WanAdapter,
    "WanImageToVideoPipeline": WanImageAdapter,
    "HunyuanVideoPipeline": HunyuanAdapter,
    "CogVideoXPipeline": CogVideoXAdapter,
}


def adapter_for(pipe: Any) -> Adapter:
    """The adapter of a pipeline, by the name of its class or of a class that it derives from."""
    names = (cls.__name__ for cls in type(pipe).__mro__)
    return next((ADAPTERS[name] for name in names if name in ADAPTERS), Adapter)(pipe)


def _flow(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones_like(sigma), -sigma


def _eps(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (1 + sigma**2).sqrt(), -sigma


def _velocity(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (1 + sigma**2).sqrt()
    return 1 / scale, -sigma / scale
