"""Networks on cached features; needs only torch and causalroute.routing."""
