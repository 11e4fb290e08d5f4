"""`groundfault doctor`: what can be measured on this machine, and what each server installed here really gives."""
