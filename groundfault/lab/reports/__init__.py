"""What runs say, for people and for pipelines: a page, a comparison, a picture, and a gate."""
