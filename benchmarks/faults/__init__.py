"""What can go wrong with a sweep, done on purpose: each room a family of faults, each function a row.

Owns: the planting of faults and the checks that must hold afterwards. Refuses: mocks; every process, signal,
server, file and disk is real.
"""
