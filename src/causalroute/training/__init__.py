"""Turns cached features into trained methods."""
