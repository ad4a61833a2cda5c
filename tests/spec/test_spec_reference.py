from __future__ import annotations

from pathlib import Path

from qwen3_codegen.spec import schema
from qwen3_codegen.spec.functions import FUNCTIONS
from qwen3_codegen.spec.reference_page import render_page

PAGE = Path(__file__).parents[2] / "docs" / "spec-reference.md"


def test_the_spec_reference_is_up_to_date() -> None:
    command = "python -m qwen3_codegen.spec.reference_page > docs/spec-reference.md"
    assert PAGE.read_text(encoding="utf-8") == render_page(), command


def test_it_names_every_key_and_function() -> None:
    page = render_page()
    for keys in (getattr(schema, name) for name in schema.__all__ if name.isupper()):
        for key in keys if keys is not schema.SHARED_FIELDS else ():
            assert f"| `{key}` |" in page, key
    for name in FUNCTIONS:
        assert f"#### {name}\n" in page


def test_links_lead_somewhere() -> None:
    page = render_page()
    anchors = {
        line.lstrip("# ").replace(" ", "-").lower() for line in page.splitlines() if "# " in line
    }
    targets = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert targets <= anchors
