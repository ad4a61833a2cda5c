"""Whatever is sent to the routes that the server's own OpenAPI page lists, none of it is a 500."""

from __future__ import annotations

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.server.live import assert_idle

ROUTES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/completions",
    "/v1/models/{name}",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
)

USER = {"role": "user", "content": "Hi"}


@pytest.fixture(scope="module")
def api(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_route_is_listed(api):
    listed = {result.ok().path for result in api.get_all_operations()}
    assert set(ROUTES) <= listed
    assert {"/health", "/metrics", "/version", "/v1/models"} <= listed


@pytest.mark.parametrize(
    ("route", "model", "asked"),
    [
        ("/v1/chat/completions", "ChatCompletionRequest", {"messages": [USER], "max_tokens": 2}),
        ("/v1/completions", "CompletionRequest", {"prompt": "Hi", "max_tokens": 2}),
        ("/v1/responses", "ResponsesRequest", {"input": "Hi", "max_output_tokens": 2}),
        ("/v1/messages", "MessagesRequest", {"messages": [USER], "max_tokens": 2}),
    ],
)
def test_bounds_of_sampling_are_listed_and_hold(http, route, model, asked):
    page = http.get("/openapi.json").json()
    fields = page["components"]["schemas"][model]["properties"]
    listed = {}
    for name, field in fields.items():
        bounds = field.get("anyOf", [{}])[0]
        if "maximum" in bounds:
            low = bounds.get("minimum", bounds.get("exclusiveMinimum"))
            listed[name] = (low, bounds["maximum"])
            below = low if "exclusiveMinimum" in bounds else low - 0.01
            for value in (below, bounds["maximum"] + 0.01):
                response = http.post(route, json={**asked, name: value})
                assert response.status_code == 400
                assert f"'{name}' is invalid; got {value}" in response.text
                assert response.json()["error"].get("param", name) == name
            assert http.post(route, json={**asked, name: bounds["maximum"]}).status_code == 200
    assert listed["temperature"] == (0, 2)
    assert listed["top_p"] == (0, 1)
    if model != "MessagesRequest":  # which has no more of them
        assert len(listed) == 6


@pytest.mark.parametrize("route", ROUTES)
def test_no_request_breaks_the_server(api, http, route):
    (operation,) = (result.ok() for result in api.get_all_operations() if result.ok().path == route)
    with requests.Session() as session:
        session.trust_env = False

        @given(case=operation.as_strategy())
        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def send(case):
            response = case.call(session=session, timeout=30)
            assert response.status_code < 500, (response.status_code, case.body, response.text)

        send()
    assert_idle(http)
