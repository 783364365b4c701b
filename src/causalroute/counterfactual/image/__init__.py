"""Image editors: each module finds the core mask of posts; `edit` turns masks and donors into rows of the counterfactual table."""

from __future__ import annotations

from causalroute.counterfactual.image.edit import edit_images

__all__ = ["edit_images"]
