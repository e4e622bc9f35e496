"""Competitions: challenges declared beforehand, runs that can be stopped and taken up, and a board that stands on result files alone."""

from vaestro.arena.board import Board, board, write_board
from vaestro.arena.challenge import Challenge, load_challenge, shipped
from vaestro.arena.report import report
from vaestro.arena.running import forget_failures, run

CHALLENGES = tuple(shipped())

__all__ = ["CHALLENGES", "Board", "Challenge", "board", "forget_failures", "load_challenge", "report", "run", "write_board"]
