"""Scenarios that come with the simulator: ``groundfault simulate NAME``. ``groundfault simulate --list`` lists them."""
