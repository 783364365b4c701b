"""Shortcut search before any training: what, beside the meaning of a post, tells its label?"""

from __future__ import annotations

from causalroute.audit.search import audit, search

__all__ = ["audit", "search"]
