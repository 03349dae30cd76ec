"""Fault injection for sweeps: each module is a group of faults, each function a row of the table.

A function injects a fault and checks what must hold afterwards. There are no mocks: every process, signal,
server, file and disk is real.
"""
