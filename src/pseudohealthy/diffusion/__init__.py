"""Schedules, denoisers, the sampler and its noise."""

from .denoiser import Denoiser, Estimate
from .guidance import guide, log_probability
from .noise import Draw
from .sampler import sample, walk
from .schedule import Schedule
from .simplex import simplex

__all__ = [
    "Denoiser",
    "Draw",
    "Estimate",
    "Schedule",
    "guide",
    "log_probability",
    "sample",
    "simplex",
    "walk",
]
