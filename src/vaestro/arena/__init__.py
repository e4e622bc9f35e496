"""Competitions: challenges declared beforehand, runs that can be stopped and taken up, and a board that stands on result files alone."""

from vaestro.arena.board import Board, board, write_board
from vaestro.arena.challenge import Challenge, load_challenge, shipped
from vaestro.arena.checking import Check, check
from vaestro.arena.making import new
from vaestro.arena.removal import disqualify, reinstate
from vaestro.arena.replay import replay
from vaestro.arena.report import report
from vaestro.arena.running import forget_failures, run
from vaestro.arena.text import render

CHALLENGES = tuple(shipped())

__all__ = [
    "CHALLENGES",
    "Board",
    "Challenge",
    "Check",
    "board",
    "check",
    "disqualify",
    "forget_failures",
    "load_challenge",
    "new",
    "reinstate",
    "render",
    "replay",
    "report",
    "run",
    "write_board",
]
