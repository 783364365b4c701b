"""Choosing experts and moving tokens to them and back; needs only torch."""

from causalroute.routing.api import Permutation, Routing, combine, dispatch, dispatch_product, load_balance, permute, route, z_loss

__all__ = ["Permutation", "Routing", "combine", "dispatch", "dispatch_product", "load_balance", "permute", "route", "z_loss"]
