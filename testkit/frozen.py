"""A sampler that gives the model the same input in every call, so that reuse must not change the answer."""

import comfy.sample
import comfy.samplers
import torch


def frozen_answers(model, noise, positive, negative, calls=12, cfg=4.0, turned=None):
    """The answers of `model` to the same x, sigma and conditioning in `calls` calls, as a list.

    turned: the call at which x is flipped for the rest, so that a reused answer differs from a computed one.
    """
    answers = []

    def loop(model, x, sigmas, extra_args=None, **_):
        level = sigmas[len(sigmas) // 3].expand(len(x))
        for call in range(calls):
            x = x.flip(-1) if call == turned else x
            answers.append(model(x, level, **extra_args).clone())
        return x

    comfy.sample.sample_custom(
        model,
        noise,
        cfg,
        comfy.samplers.KSAMPLER(loop),
        torch.linspace(1, 0, calls + 1),
        positive,
        negative,
        torch.zeros_like(noise),
        disable_pbar=True,
    )
    return answers
