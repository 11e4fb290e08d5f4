"""The parts of ``bench/overload.py``: what arrives, who sends it, what serves it, and what became of it."""
