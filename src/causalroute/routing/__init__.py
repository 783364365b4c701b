"""Choosing experts and moving tokens to them and back; needs only torch."""

from causalroute.routing.api import Permutation, Routing, combine, dispatch, load_balance, permute, route, z_loss

__all__ = ["Permutation", "Routing", "combine", "dispatch", "load_balance", "permute", "route", "z_loss"]
