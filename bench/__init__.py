"""Speed, measured beside what a user would pick instead, in one run, as a ratio.

``python -m bench NAME [--json]`` runs one benchmark. Each is a module here with a
function ``run(options) -> dict``; its docstring says what is compared and how. Figures
hold for the machine and the moment; only ratios from one run mean something.
"""
