"""Correction in other ways than the product's, to show what each choice is worth: rows `corrector …` of `frontier`."""

VARIANTS = ("theta 0", "theta 1", "quad", "slow", "taylor", "prediction")


def replace_correction(kept, name, levels):
    """Put a variant in the place of the corrector, or of the predictor, of these new Predictions.

    levels: as in Corrector.
    theta 0, theta 1: how much of the displacement is taken out of the derivative that was computed at the displaced
    x; the product takes 1/2, and 3/4 with multi-step samplers. quad: interpolation through three computed calls instead
    of a line through two. slow: handed back until the end of the run instead of over the last gap. taylor,
    prediction: corrected in the same way, but predicted by the whole trend, or by the last prediction as it was.
    """
    from PreciseCache.precisecache_core.lfcache.reuse.corrector import Corrector
    from PreciseCache.precisecache_core.lfcache.reuse.prediction import Prediction
    from PreciseCache.precisecache_core.lfcache.reuse.taylor import Taylor

    class Quad(Corrector):
        def interpolation(self, sigma, levels):
            if len(levels) < 3:
                return super().interpolation(sigma, levels)
            weights = []
            for level in levels:
                others = [other for other in levels if other != level]
                weight = 1.0
                for other in others:
                    weight *= (sigma - other) / (level - other)
                weights.append(weight)
            return weights

    class Slow(Corrector):
        def length(self, sigma, gap):
            return sigma - self.end_sigma

    class CorrectedTaylor(Taylor):
        is_corrected = True

        @property
        def nodes(self):
            calls = ((self.previous_sigma, self.previous), (self.sigma, self.current))
            return [(sigma, tensor) for sigma, tensor in calls if tensor is not None]

    class CorrectedPrediction(Prediction):
        is_corrected = True

        def weights(self, sigma):
            return [1.0]

        @property
        def nodes(self):
            return [] if self.current is None else [(self.sigma, self.current)]

    if name.startswith("theta"):
        kept.corrector.theta = kept.corrector.theta_multi_step = float(name.split()[1])
    elif name in ("quad", "slow"):
        kept.corrector = {"quad": Quad, "slow": Slow}[name](levels)
    else:
        kept.guided = {"taylor": CorrectedTaylor, "prediction": CorrectedPrediction}[name]()
