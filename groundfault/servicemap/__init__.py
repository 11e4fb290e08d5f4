"""The service map: who calls whom, how often, with what outcome, and how long it waits there."""
