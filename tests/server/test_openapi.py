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


@pytest.fixture(scope="module")
def api(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_route_is_listed(api):
    listed = {result.ok().path for result in api.get_all_operations()}
    assert set(ROUTES) <= listed
    assert {"/health", "/metrics", "/version", "/v1/models"} <= listed


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
