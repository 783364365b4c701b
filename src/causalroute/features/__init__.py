"""Frozen backbones and the content-addressed store of what they say about texts and images."""
