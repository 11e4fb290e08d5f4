"""A proxy between two services that makes the faults a network has: slow, cut, silent, gone. Loopback only unless told.

:mod:`fault` says what a fault is, :mod:`proxy` is the routes, :mod:`control` the line on which they are told.
``python -m groundfault.lab.faults`` runs it as a process of its own.
"""
