"""Multimodal large language models: how they are loaded, how a post is put to them, what is read from their states."""
