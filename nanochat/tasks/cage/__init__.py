"""The parts of the sandbox: what a program may see, how it is locked in, how it is watched. Use
`tasks.sandbox`.
"""
