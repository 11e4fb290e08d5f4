"""A fleet in virtual time: the real shedding and breaker cores, with simulated servers, callers and users around."""
