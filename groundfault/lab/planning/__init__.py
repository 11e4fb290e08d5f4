"""How many instances of each service must be up when: ``groundfault plan``. Needs nothing but the standard library."""
