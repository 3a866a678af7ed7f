"""Arithmetic on latents and predictions: parametrizations, shrinking, trials, frequency bands."""
