"""The HTTP service: a saved model behind limits and one queue, and a page to try it. `application.create` makes it, `causalroute serve` runs it."""
