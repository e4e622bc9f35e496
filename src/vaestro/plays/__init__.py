"""Plays: who moves, on what loss, in what order."""

from vaestro.plays.adversarial import bigan, gan, vae_gan
from vaestro.plays.around import priced, telling
from vaestro.plays.codes import cooled, enumerated
from vaestro.plays.disentangling import factor
from vaestro.plays.inference import Lead, lagging, mutual_information
from vaestro.plays.introspective import Betas, soft_intro
from vaestro.plays.moves import Clock, Move, Play, alone, annealed, still, terms_of
from vaestro.plays.pairs import paired
from vaestro.plays.paths import dreg, stl
from vaestro.plays.perceptual import beside
from vaestro.plays.pretraining import pretrained
from vaestro.plays.score import Baseline, nvil, scored, without_path
from vaestro.plays.wake_sleep import piwae, rws
from vaestro.plays.weights import Multiplier, curriculum, easiest, geco

__all__ = [
    "Baseline",
    "Betas",
    "Clock",
    "Lead",
    "Move",
    "Multiplier",
    "Play",
    "alone",
    "annealed",
    "beside",
    "bigan",
    "cooled",
    "curriculum",
    "dreg",
    "easiest",
    "enumerated",
    "factor",
    "gan",
    "geco",
    "lagging",
    "mutual_information",
    "nvil",
    "paired",
    "piwae",
    "pretrained",
    "priced",
    "rws",
    "scored",
    "soft_intro",
    "still",
    "stl",
    "telling",
    "terms_of",
    "vae_gan",
    "without_path",
]
