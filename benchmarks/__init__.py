"""Benchmarks: each member measures one thing beside a peer, or beside the bare limit, in the same run.

Takes   the installed distributions, and a folder to write in.
Gives   a table, and the same as JSON in ``results/``.
Never   compares two runs except by their ratios: machines differ, and one machine differs by the hour.
"""
