"""What /metrics tells Prometheus; one registry a service, so that two in one process do not mix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
POSTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters and histograms; names begin with `causalroute_`. No label holds anything that a client wrote."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("method", "path", "status")
        self.requests = Counter("causalroute_requests", "Requests by path and status.", labels, registry=self.registry)
        self.seconds = Histogram("causalroute_request_seconds", "From head to answer.", ("path",), buckets=SECONDS, registry=self.registry)
        self.open = Gauge("causalroute_requests_in_flight", "Requests that are not answered yet.", registry=self.registry)
        self.rejected = Counter("causalroute_rejected", "Refused requests by reason.", ("reason",), registry=self.registry)
        self.posts = Counter("causalroute_posts_predicted", "Posts that the model answered.", registry=self.registry)
        self.batches = Histogram("causalroute_batch_posts", "Posts in one call of the model.", buckets=POSTS, registry=self.registry)
        self.calls = Histogram("causalroute_predict_seconds", "One call of the model.", buckets=SECONDS, registry=self.registry)

    def gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when it is read."""
        Gauge(f"causalroute_{name}", what, registry=self.registry).set_function(value)

    def predicted(self, posts: int, seconds: float) -> None:
        """After every call of the model."""
        self.posts.inc(posts)
        self.batches.observe(posts)
        self.calls.observe(seconds)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
