"""One module per foreign library, named after it; nothing is imported here."""
