"""Plays: who moves, on what loss, in what order."""

from vaestro.plays.adversarial import vae_gan
from vaestro.plays.moves import Clock, Move, Play, alone, annealed, terms_of

__all__ = ["Clock", "Move", "Play", "alone", "annealed", "terms_of", "vae_gan"]
