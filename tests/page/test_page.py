"""The page in a real browser against a real server: a reader's walk through it."""

from __future__ import annotations

import json
import re

import pytest

from tests.page.echo import EchoLoader
from tests.page.server import live_server
from tests.project.source_tree import ROOT

LONG = "word after word " * 40
SCREENSHOTS = ROOT / "build" / "page"
"""For people to look at."""
MANIFEST = ROOT / "generated" / "qwen3_1_7b_mlu" / "manifest.json"


def ask(page, question: str) -> None:
    page.fill("#message", question)
    page.press("#message", "Enter")


def answer(page, number: int = -1):
    """The answer, once it is over."""
    page.wait_for_selector(".answer:not(.running)")
    page.wait_for_selector("#send", state="visible")
    return page.locator(".answer").nth(number)


def requests_of(page) -> list[dict]:
    bodies = []

    def note(request):
        if request.url.endswith("/v1/chat/completions"):
            bodies.append(json.loads(request.post_data))

    page.on("request", note)
    return bodies


# ---- the conversation -----------------------------------------------------------------------


def test_an_answer_streams_and_the_figures_say_how_fast(open_page, slow_server):
    page = open_page(slow_server)
    ask(page, LONG[:100])
    page.wait_for_selector(".answer > .text:has-text('word')")
    partial = page.inner_text(".answer > .text")
    assert page.locator(".answer.running").count() == 1
    assert len(partial) < 100
    assert page.input_value("#message") == ""
    assert answer(page).locator("> .text").inner_text() == LONG[:100].strip()
    figures = page.inner_text(".figures")
    found = re.fullmatch(r"(\d+) tokens · ([\d.]+) tokens/s · first token ([\d.]+) s", figures)
    assert found, figures
    assert int(found[1]) == len(LONG[:100].strip()) + 1
    assert 5 < float(found[2]) < 1 / 0.03
    assert 0.03 <= float(found[3]) < 10
    assert page.inner_text("#context").endswith("of 2000 tokens")


def test_turns_are_remembered_until_a_new_chat(open_page, server):
    page = open_page(server)
    bodies = requests_of(page)
    for question in ("one", "二", "three"):
        ask(page, question)
        assert answer(page).locator("> .text").inner_text() == question
    assert [(m["role"], m["content"]) for m in bodies[2]["messages"]] == [
        ("user", "one"),
        ("assistant", "one"),
        ("user", "二"),
        ("assistant", "二"),
        ("user", "three"),
    ]
    page.click("#new-chat")
    assert page.locator("article").count() == 0
    assert page.is_visible("#welcome")
    ask(page, "four")
    answer(page)
    assert len(bodies[3]["messages"]) == 1


def test_another_answer_takes_the_place_of_the_first(open_page, server):
    page = open_page(server)
    bodies = requests_of(page)
    ask(page, "again")
    answer(page).locator(".retry").click()
    assert answer(page).locator("> .text").inner_text() == "again"
    assert page.locator("article").count() == 1
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("how", ["button", "escape", "new chat", "leaving"])
def test_stop_ends_the_work_of_the_engine(open_page, slow_server, how):
    page = open_page(slow_server)
    ask(page, LONG)
    page.wait_for_selector(".answer > .text:has-text('word')")
    assert slow_server.health()["num_requests_running"] == 1
    {
        "button": lambda: page.click("#stop"),
        "escape": lambda: page.keyboard.press("Escape"),
        "new chat": lambda: page.click("#new-chat"),
        "leaving": lambda: page.goto("about:blank"),
    }[how]()
    slow_server.wait_until_idle(seconds=5)
    if how in ("button", "escape"):
        stopped = answer(page)
        assert 0 < len(stopped.locator("> .text").inner_text()) < len(LONG) / 2
        assert stopped.locator(".figures").inner_text().endswith("stopped")
        assert page.evaluate("document.activeElement.id") == "message"
    if how != "leaving":
        ask(page, "go on")
        assert answer(page).locator("> .text").inner_text() == "go on"


def test_thoughts_are_folded(open_page, server):
    page = open_page(server)
    bodies = requests_of(page)
    ask(page, "<think>\nFirst **this**.\n</think>\n\nThen that.")
    shown = answer(page)
    assert shown.locator("> .text").inner_text() == "Then that."
    summary = shown.locator("summary")
    assert re.fullmatch(r"Thought for [\d.]+ s", summary.inner_text())
    assert not shown.locator(".thought .text").is_visible()
    summary.click()
    assert shown.locator(".thought .text").inner_text() == "First this."
    ask(page, "next")
    answer(page)
    assert bodies[1]["messages"][1]["content"].strip() == "Then that."


def test_keys(open_page, server):
    page = open_page(server)
    assert page.evaluate("document.activeElement.id") == "message"
    page.keyboard.type("first")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second")
    page.evaluate(
        "document.getElementById('message').dispatchEvent(new KeyboardEvent("
        "'keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    assert page.input_value("#message") == "first\nsecond"
    page.keyboard.press("Enter")
    assert answer(page).locator("> .text").inner_text() == "first\nsecond"
    page.keyboard.type("  ")
    page.keyboard.press("Enter")
    assert page.locator("article").count() == 1


def test_copy(open_page, server):
    page = open_page(server)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "see\n```sh\nls -l\n```")
    shown = answer(page)
    clipboard = "navigator.clipboard.readText()"
    shown.locator(".code button").click()
    page.wait_for_selector(".code button:has-text('Copied')")
    assert page.evaluate(clipboard) == "ls -l"
    shown.locator(".answer-foot button").first.click()
    page.wait_for_selector(".answer-foot button:has-text('Copied')")
    assert page.evaluate(clipboard) == "see\n```sh\nls -l\n```"


# ---- settings and the engine ----------------------------------------------------------------


def test_settings_reach_the_server_and_are_remembered(open_page, server):
    page = open_page(server)
    bodies = requests_of(page)
    ask(page, "default")
    answer(page)
    assert set(bodies[0]) == {"messages", "stream", "stream_options", "model"}
    page.click("#open-panel")
    values = {"temperature": "0.7", "top_p": "0.8", "top_k": "20", "max_tokens": "3"}
    for name, value in {**values, "system": "Be brief."}.items():
        page.fill(f"[name={name}]", value)
    page.select_option("[name=thinking]", "off")
    page.select_option("#model", "parrot")
    ask(page, "chosen")
    assert answer(page).locator(".figures").inner_text().endswith("cut off at the token limit")
    chosen = {name: float(value) for name, value in values.items()}
    assert {name: bodies[1][name] for name in chosen} == chosen
    assert bodies[1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert bodies[1]["model"] == "parrot"
    assert bodies[1]["messages"][0] == {"role": "system", "content": "Be brief."}

    page.reload()
    assert page.input_value("[name=top_k]") == "20"
    page.fill("#message", "wrong")
    page.evaluate("document.querySelector('[name=temperature]').value = 9")
    page.press("#message", "Enter")
    assert page.is_visible("[name=temperature]:invalid")
    assert len(bodies) == 2
    page.click("#reset")
    page.press("#message", "Enter")
    answer(page)
    assert set(bodies[2]) == set(bodies[0])


def test_the_engine_is_shown_and_an_emulated_device_announced(open_page, server):
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    names = ("device", "dtype", "num_layers", "memory", "ops")
    with live_server(EchoLoader(description={name: manifest[name] for name in names})) as live:
        page = open_page(live)
        page.click("#open-panel")
        page.wait_for_selector("#emulated")
        shown = page.inner_text("#engine-facts")
        for fact in ("cambricon (emulated)", "portable", "bfloat16", "28", "2000", "0 / 0"):
            assert fact in shown
        assert re.search(r"Weights\s+3.44 GB\s+Key-value cache\s+1.5 GB", shown)
        assert re.search(r"attention\s+causal_softmax, gemm, rearrange", shown)
        page.close()  # before the server it asks now and then
    page = open_page(server)
    page.click("#open-panel")
    page.wait_for_selector("dd")
    assert not page.is_visible("#emulated")
    page.keyboard.press("Escape")
    assert not page.is_visible("#panel")


# ---- what goes wrong ------------------------------------------------------------------------


def test_a_key_is_asked_for_and_kept_for_the_tab(open_page):
    with live_server(EchoLoader(), api_keys=("secret",)) as live:
        page = open_page(live)
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "wrong")
        page.press("#key", "Enter")
        page.wait_for_selector("#key-wrong")
        page.click("#key-cancel")
        ask(page, "hello")
        page.wait_for_selector("#key-dialog[open]")
        page.fill("#key", "secret")
        page.press("#key", "Enter")
        assert answer(page).locator("> .text").inner_text() == "hello"
        page.reload()
        page.wait_for_selector("#model option", state="attached")
        assert not page.is_visible("#key-dialog")
        assert "secret" in page.evaluate("JSON.stringify(sessionStorage)")
        assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
        ask(page, "still there")
        assert answer(page).locator("> .text").inner_text() == "still there"
        assert page.console
        assert all("401" in word for word in page.console)  # the browser's own words
        page.console.clear()


def test_errors_are_said_and_do_not_end_the_conversation(open_page):
    with live_server(EchoLoader(max_model_len=200)) as live:
        page = open_page(live)
        bodies = requests_of(page)
        ask(page, LONG)
        problem = answer(page).locator(".problem")
        assert "maximum context length is 200 tokens" in problem.inner_text()
        ask(page, "short")
        assert answer(page).locator("> .text").inner_text() == "short"
        assert len(bodies[1]["messages"]) == 1
        assert all("400" in word for word in page.console)
        page.console.clear()
    ask(page, "is anybody there?")
    assert answer(page).locator(".problem").inner_text() == "The server cannot be reached."
    page.wait_for_selector("#state[data-state=failed]")
    page.console.clear()


def test_an_answer_cut_off_by_the_server_says_so(open_page, server):
    page = open_page(server)
    begun = 'data: {"choices": [{"delta": {"content": "half an"}}]}\n\n'
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=begun, content_type="text/event-stream"),
    )
    ask(page, "hello")
    assert answer(page).locator("> .text").inner_text() == "half an"
    assert "ended before the answer" in page.inner_text(".problem")
    failure = 'data: {"error": {"message": "a step failed"}}\n\ndata: [DONE]\n\n'
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(body=begun + failure, content_type="text/event-stream"),
    )
    page.click(".retry")
    page.wait_for_selector(".problem:has-text('a step failed')")


# ---- looks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1440])
def test_it_fits_any_screen(open_page, server, width, scheme):
    page = open_page(server, width=width, height=720, scheme=scheme)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = f"{width}-{scheme}"
    ask(
        page,
        f"# Title\n\n`{'wide' * 60}`\n\n```\n{'wide ' * 60}\n```\n\n| a | b |\n|-|-|\n| 1 | 2 |",
    )
    answer(page)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    overflowing = """["html", "#scroller", "#panel"].filter((name) => {
      const element = document.querySelector(name);
      return element.scrollWidth > element.clientWidth;
    })"""
    assert page.evaluate(overflowing) == []
    page.click("#open-panel")
    page.wait_for_selector("dd")
    assert page.evaluate(overflowing) == []
    page.screenshot(path=SCREENSHOTS / f"{name}-settings.png")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    is_dark = sum(map(int, re.findall(r"\d+", ground)[:3])) < 384
    assert is_dark == (scheme == "dark")


def test_the_theme_can_be_chosen_and_is_remembered(open_page, server):
    page = open_page(server)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.click("#theme")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.click("#theme")
    assert page.evaluate(ground) == light


def test_it_speaks_chinese(open_page, server):
    page = open_page(server, locale="zh-CN")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.inner_text("#new-chat") == "新对话"
    ask(page, "你好，世界")
    shown = answer(page)
    assert shown.locator("> .text").inner_text() == "你好，世界"
    assert "首个 token" in shown.locator(".figures").inner_text()


def test_every_control_has_a_name(open_page, server):
    page = open_page(server)
    page.click("#open-panel")
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea")]
        .filter((each) => !each.ariaLabel && !each.textContent.trim()
          && ![...(each.labels ?? [])].some((label) => label.textContent.trim()))
        .map((each) => each.outerHTML)"""
    )
    assert nameless == []
    assert "undefined" not in page.content()
    ask(page, "said aloud")
    answer(page)
    assert page.inner_text("#announcer[aria-live=polite]") == "Answer: said aloud"
