"""Runs programs nobody has read, without root, where they can do no harm.

Whatever a program runs in (`tiers`), it is one process that cannot start another, reach a network, a process or a
file of the machine, or outlive its run. What the process inside imports is the standard library alone.
"""
