"""Everything that GroundFault counts, under the names that the world knows it by."""
