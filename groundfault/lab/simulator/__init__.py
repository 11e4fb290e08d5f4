"""A fleet in virtual time: the same shedding and breaker cores, with simulated servers, callers and users around them."""
