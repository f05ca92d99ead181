"""Whole runs in a simulated machine: the engine, its journal and its store are real; time, processes, people and faults come from a seed.

`python -m tests.simulator --seeds N [--first S]` runs seeds S to S+N-1 and prints those that went wrong; `--seed S` runs one and prints what
happened. A step is a model of `lamdatui.step.child`: its claim, its request, its outcome, its object and its scores are written by the
product's own functions, its work is a wait. An engine or a step is killed at any fault point it passes and at any moment, a disk is full at
any point, and people pause, veto, edit, queue, cancel, suspend and stop. What must hold after each death and at the end is in `Simulation.check`
and `Simulation.check_end`.
"""
