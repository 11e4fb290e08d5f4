"""The parts of ``bench/cascade.py``: the services of the chain, what happens to them, and what came of it."""
