"""The page's files without a browser: whole, from here alone, and under a strict policy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import qwen3_runtime.server
from qwen3_runtime.server.page import PAGE_PATHS, page_router

STATIC = Path(qwen3_runtime.server.__file__).parent / "static"
INDEX = (STATIC / "index.html").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")}
TEXTS = SCRIPTS["texts.js"]


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(page_router())
    return TestClient(app)


def test_every_file_is_served_as_it_is_under_the_policy(client):
    kinds = {
        ".html": "text/html",
        ".js": "text/javascript",
        ".css": "text/css",
        ".svg": "image/svg+xml",
    }
    assert len(PAGE_PATHS) == len(list(STATIC.iterdir()))
    for path in STATIC.iterdir():
        response = client.get("/" if path.name == "index.html" else f"/page/{path.name}")
        assert response.status_code == 200
        assert response.content == path.read_bytes()
        assert response.headers["content-type"].split(";")[0] == kinds[path.suffix]
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy


def test_nothing_else_is_served_from_the_folder(client):
    for path in ("/page/", "/page/index.html", "/page/../page.py", "/page/%2e%2e/page.py"):
        assert client.get(path).status_code == 404


def test_head_is_answered_and_the_api_description_left_alone(client):
    assert client.head("/").status_code == 200
    assert client.get("/openapi.json").json()["paths"] == {}


def test_what_files_name_is_there():
    named = set(re.findall(r'(?:src|href)="([^"]+)"', INDEX))
    assert named == {"page/icon.svg", "page/page.css", "page/page.js"}
    for text in SCRIPTS.values():
        imported = set(re.findall(r'^import .* from "(.*)";$', text, re.MULTILINE))
        assert {name.removeprefix("./") for name in imported} <= set(SCRIPTS)


def test_nothing_comes_from_elsewhere_and_nothing_is_inline():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.findall(r"https?://\w|@import|url\(", text), path.name
    assert not re.search(r"<style|<script(?! type=\"module\" src)|\son\w+=|\sstyle=", INDEX)


def test_raw_text_never_becomes_markup():
    for name, text in SCRIPTS.items():
        sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
        assert not re.search(sinks, text), name


def test_both_languages_say_everything():
    english, chinese = (
        set(re.findall(r"^  (\w+): ", block, re.MULTILINE))
        for block in re.findall(r"^const [A-Z]+ = \{$(.*?)^\};$", TEXTS, re.MULTILINE | re.DOTALL)
    )
    named = set(re.findall(r'data-(?:text|label|placeholder)="(\w+)"', INDEX))
    used = {name for text in SCRIPTS.values() for name in re.findall(r"(?<!/)\btexts\.(\w+)", text)}
    assert english == chinese == named | used
