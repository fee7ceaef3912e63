"""The simulation of the client: a user's machine in memory, driven by hypothesis, checked after every step.

``python -m tests.simulation --steps 100000`` runs it for as long as one likes.
"""
