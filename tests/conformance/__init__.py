"""The public conformance suite: the hard cases of circuit breaking, as questions that any library can be asked."""
