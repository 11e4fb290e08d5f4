"""The kit that the load scenarios stand on: arrivals that wait for nobody, on Locust's own engine.

:mod:`~groundfault.lab.load.scenario` and :mod:`~groundfault.lab.load.targets` are pure and say what a scenario is;
:mod:`~groundfault.lab.load.locusting` runs it. docs/reference/load.md is the guide.
"""
