"""What each command does, one module a command; :mod:`fsrep_core.ops.cli` imports it late.

Every function here returns the exit status: 0 all is well, 1 something failed,
130 and 143 ended by a signal. Mistakes of usage and configuration are raised and give 2.
"""
