"""From two inventories to steps, or to a conflict that explains itself.

Pure: no input or output, no clock, no trio.
"""
