"""The line in front of the one predictor: who may enter, who waits, and who is predicted together.

A request takes one of `concurrency` slots, or waits for one, or is refused when `queue` others wait already. With its posts read it joins the line; the
one thread that owns the predictor takes, whenever it becomes free, all posts that wait there (up to `batch`) into one call. Answers do not depend on who
came along, up to rounding: that is the predictor's promise.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from causalroute.serving.http.errors import Refused
from causalroute.serving.posts import Post, Prediction

Predict = Callable[[Sequence[Post], bool], list[Prediction]]
LONGEST_WAIT = 60
"""Seconds that a refused client is told to wait, at most."""


@dataclass
class Ticket:
    """How far a request has come: what its end by time means depends on it."""

    stage: str = "waiting"
    """waiting (for its turn), reading (its body) or computing"""


@dataclass(frozen=True, eq=False)
class Job:
    """The posts of one request in the line."""

    posts: Sequence[Post]
    explain: bool
    answer: Future[list[Prediction]] = field(default_factory=Future)


class Admission:
    """Slots for requests, and places to wait for one."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency, self.most = concurrency, concurrency + queue
        self.inside = 0
        self._slots = asyncio.Semaphore(concurrency)

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return max(0, self.inside - self.concurrency)

    @asynccontextmanager
    async def slot(self, seconds_per_post: float) -> AsyncIterator[None]:
        """Held while a request is worked on.

        Raises:
            Refused: 429, too many wait already.
        """
        if self.inside >= self.most:
            retry = min(LONGEST_WAIT, max(1, math.ceil(self.inside * seconds_per_post)))
            raise Refused(429, "queue_full", f"{self.inside} requests are at work or wait already", fix=f"come again in {retry} s", retry=retry)
        self.inside += 1
        try:
            async with self._slots:
                yield
        finally:
            self.inside -= 1


class Batcher:
    """The thread that owns the predictor.

    Args:
        predict: posts and whether to explain -> answers.
        size: posts of several requests in one call, at most.
        warm: called in the thread before anything else.
        predicted: told posts and seconds of every call.
    """

    def __init__(self, predict: Predict, size: int, warm: Callable[[], None], predicted: Callable[[int, float], None]) -> None:
        self._predict, self._size, self._warm, self._predicted = predict, size, warm, predicted
        self._line: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.ready = False
        self.failed: BaseException | None = None
        """why `warm` did not succeed"""
        self.seconds_per_post = 0.0
        """of the last call"""
        # A daemon: a predictor that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="predictor", daemon=True)

    def start(self, told: Callable[[BaseException | None], None]) -> None:
        """Starts the thread; `told` is called in it once, with None when the model is warm, or with what went wrong."""
        self._told = told
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Ends the thread when its line is empty, waiting so long at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @property
    def waiting(self) -> int:
        """Posts in the line."""
        with self._changed:
            return sum(len(job.posts) for job in self._line)

    async def answer(self, posts: Sequence[Post], explain: bool, ticket: Ticket) -> list[Prediction]:
        """Joins the line; a request that is cancelled while it waits leaves it.

        Raises:
            UserError: the predictor cannot use a post.
        """
        job = Job(posts, explain)
        with self._changed:
            self._line.append(job)
            self._changed.notify()
        try:
            return await asyncio.wrap_future(job.answer)
        finally:
            with self._changed:
                if job in self._line:  # its time is over: its pictures shall not stay in memory
                    self._line.remove(job)
            ticket.stage = "computing" if job.answer.running() else "waiting"

    def _run(self) -> None:
        try:
            self._warm()
        except BaseException as error:
            self.failed = error
            self._told(error)
            return
        self.ready = True
        self._told(None)
        while jobs := self._next():
            self._work(jobs)
            del jobs  # else the posts stay in memory until the next request

    def _next(self) -> list[Job]:
        """What is predicted together: the oldest job and those behind it of the same kind; empty at the end."""
        with self._changed:
            chosen: list[Job] = []
            while not chosen:
                self._changed.wait_for(lambda: self._line or self._closed)
                if not self._line:
                    return []
                room = self._size
                while self._line and (not chosen or (self._line[0].explain == chosen[0].explain and len(self._line[0].posts) <= room)):
                    job = self._line.popleft()
                    if job.answer.set_running_or_notify_cancel():
                        chosen.append(job)
                        room -= len(job.posts)
            return chosen

    def _work(self, jobs: Sequence[Job]) -> None:
        """One call for all; where it fails, one for each, so that no request suffers from another's post."""
        posts = [post for job in jobs for post in job.posts]
        start = time.perf_counter()
        try:
            found = self._predict(posts, jobs[0].explain)
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].answer.set_exception(error)
            else:
                for job in jobs:
                    self._work([job])
            return
        seconds = time.perf_counter() - start
        self.seconds_per_post = seconds / len(posts)
        self._predicted(len(posts), seconds)
        done = 0
        for job in jobs:
            job.answer.set_result(found[done : done + len(job.posts)])
            done += len(job.posts)
