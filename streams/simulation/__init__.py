"""The simulation, third driver of the stages: the whole topology in one thread, from one seed, with faults."""

from .run import Failure, Verdict, simulate_seed

__all__ = ["Failure", "Verdict", "simulate_seed"]
