"""Shortcut search before any training: what, beside the meaning of a post, tells its label?"""

from __future__ import annotations

from causalroute.audit.search import audit

__all__ = ["audit"]
