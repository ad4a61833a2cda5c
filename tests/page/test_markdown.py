"""Answers in a browser: Markdown where it is, text everywhere else, from bytes cut anywhere."""

from __future__ import annotations

import pytest

ATTACKS = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '**<b onclick="hacked = 1">bold</b>**',
    "`</code><svg onload=alert(1)>`",
    "```html\n</pre><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>\n```",
    "```<img/src/onerror=hacked=1>\ncode\n```",
    "[link](javascript:hacked=1)",
    "[link](data:text/html,<script>hacked=1</script>)",
    '[link](https://x.test/" onmouseover="hacked=1)',
    "[<img src=x onerror=hacked=1>](https://x.test/)",
    "# <style>*{display:none}</style>",
    "- <a href='javascript:hacked=1'>item</a>",
    "| <img src=x onerror=hacked=1> | b |\n|-|-|\n| <script>hacked=1</script> | 2 |",
    "&lt;script&gt; &amp; &#60;",
]
SHAPES = {
    "# One\n## Two": "<h3>One</h3><h4>Two</h4>",
    "a **b *c* d** `e*f*`": "<p>a <strong>b <em>c</em> d</strong> <code>e*f*</code></p>",
    "2 * 3 * 4 and a_b_c": "<p>2 * 3 * 4 and a_b_c</p>",
    "- a\n- b\n  - c\n- d": "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li></ul></li>"
    "<li><p>d</p></li></ul>",
    "3. a\n\n4. b\n\nc": '<ol start="3"><li><p>a</p></li><li><p>b</p></li></ol><p>c</p>',
    "> a\n> b": "<blockquote><p>a\nb</p></blockquote>",
    "a\n\n---\nb": "<p>a</p><hr><p>b</p>",
    r"\*a\* \`b\`": "<p>*a* `b`</p>",
    "|a|b|\n|:-|-|\n|1|**2**|": '<div class="table"><table><thead><tr><th>a</th><th>b</th></tr>'
    "</thead><tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody></table></div>",
}
SHOW = """async (text) => {
  const { showMarkdown } = await import("/page/markdown.js");
  const place = document.createElement("div");
  showMarkdown(place, text, () => document.createElement("i"));
  return place.innerHTML;
}"""


@pytest.fixture
def page(open_page, server):
    return open_page(server)


@pytest.mark.parametrize("text", ATTACKS)
def test_markup_is_text(page, text):
    page.fill("#message", text)
    page.press("#message", "Enter")
    page.wait_for_selector(".answer:not(.running)")
    shown = page.evaluate(
        """() => {
          const all = [...document.querySelectorAll("article *")];
          const strange = "script, img, svg, iframe, style, b";
          return {
            strange: all.filter((each) => each.matches(strange)).map((each) => each.outerHTML),
            handlers: all.flatMap((each) => each.getAttributeNames()).filter((n) => /^on/.test(n)),
            targets: all.filter((each) => each.href).map((each) => new URL(each.href).protocol),
            question: document.querySelector(".question").textContent,
            hacked: "hacked" in window,
          };
        }"""
    )
    assert shown["question"] == text
    assert shown["strange"] == []
    assert shown["handlers"] == []
    assert set(shown["targets"]) <= {"https:"}
    assert not shown["hacked"]


@pytest.mark.parametrize("text", SHAPES)
def test_shapes(page, text):
    assert page.evaluate(SHOW, text) == SHAPES[text]


def test_code_keeps_every_character(page):
    shown = page.evaluate(SHOW, "before\n~~~py\na  **b**\n\n```\n  <c>\n~~~\nafter")
    code = "<code>a  **b**\n\n```\n  &lt;c&gt;</code>"
    block = f'<div class="code"><i></i><pre tabindex="0">{code}</pre></div>'
    assert shown == f"<p>before</p>{block}<p>after</p>"


def test_links_lead_only_to_the_web_and_tell_it_nothing(page):
    shown = page.evaluate(SHOW, "[a](https://x.test/b_(c)) http://y.test/d, [e](ftp://z.test)")
    rel = 'target="_blank" rel="noopener noreferrer nofollow"'
    assert shown == (
        f'<p><a href="https://x.test/b_(c)" {rel}>a</a> '
        f'<a href="http://y.test/d" {rel}>http://y.test/d</a>, [e](ftp://z.test)</p>'
    )


def test_a_growing_text_keeps_the_nodes_of_what_is_finished(page):
    assert page.evaluate(
        """async () => {
          const { showMarkdown } = await import("/page/markdown.js");
          const place = document.createElement("div");
          const head = () => document.createElement("i");
          const text = "# a\\n\\n- b\\n- c\\n\\n```\\nd\\n```\\n\\n**e** f";
          const firsts = new Set();
          for (let end = 1; end <= text.length; end += 1) {
            showMarkdown(place, text.slice(0, end), head);
            if (end > 3) firsts.add(place.firstChild);
          }
          const whole = document.createElement("div");
          showMarkdown(whole, text, head);
          return firsts.size === 1 && whole.innerHTML === place.innerHTML;
        }"""
    )


@pytest.mark.parametrize(
    "hostile",
    ["`" * 20_000, "*a " * 7_000, "[" * 20_000, "- " * 10_000, "|" * 20_000, "1. \n" * 5_000],
)
def test_hostile_text_takes_no_time(page, hostile):
    seconds = page.evaluate(
        f"async (text) => {{ const start = performance.now(); await ({SHOW})(text);"
        " return (performance.now() - start) / 1000; }",
        hostile,
    )
    assert seconds < 2


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_events_survive_any_cut(page, size, line_end):
    lines = [
        ": ping",
        "",
        'data: {"a": "é 你 🙂"}',
        "",
        "event: x",
        "data:one",
        "data: two",
        "",
        "data: [DONE]",
        "",
        "data: late",
        "",
    ]
    events = page.evaluate(
        """async ([text, size]) => {
          const { readEvents } = await import("/page/stream.js");
          const bytes = new TextEncoder().encode(text);
          let start = 0;
          const stream = new ReadableStream({
            pull(control) {
              if (start >= bytes.length) return control.close();
              control.enqueue(bytes.slice(start, (start += size)));
            },
          });
          const events = [];
          for await (const event of readEvents(new Response(stream))) events.push(event);
          return events;
        }""",
        [line_end.join([*lines, ""]), size],
    )
    assert events == ['{"a": "é 你 🙂"}', "one\ntwo"]
