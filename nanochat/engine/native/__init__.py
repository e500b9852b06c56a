"""Decoding in C, compiled where a compiler is: one call a step instead of hundreds of framework
operations.
"""
