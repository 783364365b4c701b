"""The line in front of the predictor: who is predicted together, who is refused, whose time is over, and what the metrics say of it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from tests.unit.fake_predictor import BROKEN, UNUSABLE, FakePredictor
from tests.unit.service import client, encoded, metric, picture, run, until

from causalroute.errors import UserError

PREDICT = "/v1/predict"


def post(found: httpx.AsyncClient, text: str = "lovely", **parameters: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(found.post(PREDICT, json={"text": text}, params=parameters))


async def held(found: httpx.AsyncClient, model: FakePredictor) -> asyncio.Task[httpx.Response]:
    """A request that the model is at until `model.free` is set."""
    model.free.clear()
    first = post(found)
    await until(lambda: model.calls)
    return first


async def waiting(found: httpx.AsyncClient, what: str, count: int) -> bool:
    return await metric(found, f"causalroute_{what}_waiting") == count


def test_requests_that_wait_together_are_one_call() -> None:
    model = FakePredictor()

    async def several(found: httpx.AsyncClient) -> list[httpx.Response]:
        first = await held(found, model)
        rest = [post(found, f"{'lovely' if i % 2 else 'grim'} {i}") for i in range(9)]
        await until(lambda: waiting(found, "posts", 9))
        model.free.set()
        answers = await asyncio.gather(first, *rest)
        assert await metric(found, "causalroute_posts_predicted_total") == 10
        assert await metric(found, "causalroute_batch_posts_count") == 2
        return answers

    answers = run(several, model)
    assert model.calls == [1, 9]
    assert [one.json()["label"] for one in answers[1:]] == ["sarcastic" if i % 2 else "literal" for i in range(9)]


def test_calls_are_no_larger_than_told_and_of_one_kind() -> None:
    model = FakePredictor()

    async def several(found: httpx.AsyncClient) -> list[httpx.Response]:
        first = await held(found, model)
        rest = []
        for i in range(8):
            rest.append(post(found, explain=i >= 5))
            await until(lambda i=i: waiting(found, "posts", i + 1))
        model.free.set()
        return await asyncio.gather(first, *rest)

    answers = run(several, model, batch=4)
    assert model.calls == [1, 4, 1, 3]
    assert [one.json()["explanation"] is not None for one in answers] == [False] * 6 + [True] * 3


def test_mates_do_not_change_an_answer_nor_suffer_from_each_other() -> None:
    model = FakePredictor()
    texts = ["lovely #a", UNUSABLE, "grim", BROKEN, "great #a #b"]

    async def several(found: httpx.AsyncClient) -> tuple[list[httpx.Response], list[httpx.Response]]:
        first = await held(found, model)
        rest = [post(found, text) for text in texts]
        await until(lambda: waiting(found, "posts", 5))
        model.free.set()
        await first
        return await asyncio.gather(*rest), [await post(found, text) for text in texts]

    together, alone = run(several, model)
    assert [one.status_code for one in together] == [200, 422, 200, 500, 200]
    assert [one.json() for one in together] == [one.json() for one in alone]


def test_beyond_the_queue_is_refused_at_once() -> None:
    model = FakePredictor()

    async def several(found: httpx.AsyncClient) -> None:
        first = await held(found, model)
        inside = [post(found) for _ in range(3)]
        await until(lambda: waiting(found, "requests", 2))
        beyond = await post(found)
        assert beyond.status_code == 429
        assert int(beyond.headers["Retry-After"]) >= 1
        assert set(beyond.json()) == {"error", "where", "fix"}
        assert (await found.get("/healthz")).status_code == 200
        model.free.set()
        assert {one.status_code for one in await asyncio.gather(first, *inside)} == {200}
        assert await metric(found, 'causalroute_rejected_total{reason="queue_full"}') == 1
        assert (await post(found)).status_code == 200

    run(several, model, concurrency=2, queue=2)


def test_time_is_over_and_the_service_goes_on() -> None:
    model = FakePredictor()

    async def several(found: httpx.AsyncClient) -> None:
        first = await held(found, model)
        second = post(found, "grim")
        await until(lambda: waiting(found, "posts", 1))
        await asyncio.sleep(0.5)
        third = post(found)  # waits for a slot, has one when the first is sent away, and joins the line
        answers = [(await one).status_code for one in (first, second, third)]
        assert answers == [504, 503, 503]
        assert (await second).headers["Retry-After"]
        for reason, count in (("timeout_computing", 1), ("timeout_waiting", 2)):
            assert await metric(found, f'causalroute_rejected_total{{reason="{reason}"}}') == count
        assert await waiting(found, "posts", 0)
        model.free.set()
        assert (await post(found)).status_code == 200

    run(several, model, timeout=1.5, concurrency=2)
    assert model.calls == [1, 1], "a post whose client was sent away is not predicted"


def test_a_body_that_does_not_come() -> None:
    async def slow() -> Any:
        yield b"{"
        await asyncio.sleep(5)

    async def one(found: httpx.AsyncClient) -> httpx.Response:
        return await found.post(PREDICT, content=slow(), headers={"Content-Type": "application/json"})

    assert run(one, timeout=0.2).status_code == 408


def test_not_ready_before_the_model_is_warm() -> None:
    model = FakePredictor()
    model.warm = model.free.wait  # type: ignore[method-assign]
    model.free.clear()

    async def early(found: httpx.AsyncClient) -> None:
        assert (await found.get("/healthz")).status_code == 200
        assert not (await found.get("/v1/model")).json()["ready"]
        for answer in (await found.get("/readyz"), await post(found)):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"]
        assert await metric(found, "causalroute_ready") == 0
        model.free.set()
        await until(lambda: metric(found, "causalroute_ready"))
        assert (await found.get("/readyz")).json() == {"status": "ready"}
        assert (await post(found)).status_code == 200

    run(early, model, ready=False)


def test_a_model_that_cannot_be_loaded() -> None:
    model, told = FakePredictor(), []
    model.cold = UserError("the backbone is gone")

    async def never(found: httpx.AsyncClient) -> None:
        await until(lambda: told)
        for answer in (await found.get("/readyz"), await post(found)):
            assert answer.status_code == 503
            assert "could not be loaded" in answer.json()["error"]
            assert "Retry-After" not in answer.headers

    run(never, model, ready=False, told=told.append)
    assert told == [model.cold]


def test_metrics() -> None:
    async def several(found: httpx.AsyncClient) -> str:
        await post(found)
        await found.post(PREDICT, json={"text": "x", "extra": 1})
        await found.post("/v1/predict/batch", json=[{"text": "x"}, {"image": encoded(picture())}])
        await found.request("BREW", "/pot/of/<coffee>")
        return (await found.get("/metrics")).text

    text = run(several)
    for line in (
        'causalroute_requests_total{method="POST",path="/v1/predict",status="200"} 1.0',
        'causalroute_requests_total{method="POST",path="/v1/predict",status="422"} 1.0',
        'causalroute_requests_total{method="other",path="other",status="404"} 1.0',
        'causalroute_rejected_total{reason="unknown_field"} 1.0',
        'causalroute_request_seconds_count{path="/v1/predict/batch"} 1.0',
        "causalroute_posts_predicted_total 3.0",
        "causalroute_batch_posts_count 2.0",
        "causalroute_requests_in_flight 0.0",
        "causalroute_requests_waiting 0.0",
    ):
        assert line in text.splitlines()
    assert "coffee" not in text
    assert "process_resident_memory_bytes" in text


def test_two_services_do_not_share_their_counts() -> None:
    async def both() -> tuple[float, float]:
        async with client() as one, client() as other:
            await post(one)
            line = "causalroute_posts_predicted_total"
            return await metric(one, line), await metric(other, line)

    assert asyncio.run(both()) == (1, 0)


@pytest.mark.parametrize("explain", [False, True])
def test_many_at_once_all_get_their_own_answer(explain: bool) -> None:
    model = FakePredictor(0.002)

    async def many(found: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(post(found, f"{'lovely' if i % 3 else 'grim'} {'#t ' * (i % 4)}", explain=explain) for i in range(70)))

    answers = run(many, model)
    assert [one.json()["label"] for one in answers] == ["sarcastic" if i % 3 else "literal" for i in range(70)]
    assert len(model.calls) < 70
