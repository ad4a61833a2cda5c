"""Fixtures that several areas share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.reference.cases import ReferenceCase
    from tests.reference.models import ReferenceModel

# Nothing is fetched while tests run, not even by accident.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the compiler emits over tests/emission/golden instead of comparing",
    )


def pytest_configure() -> None:
    """What runs in the background has Ctrl-C ignored, and so would every program under test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "reference" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.reference)


@pytest.fixture(scope="session")
def engine_cache(pytestconfig: pytest.Config) -> Path:
    """Folder of compiled engines: the user's own choice, else one that pytest keeps.

    Workers share it; a rerun finds every engine whose sources did not change.
    """
    chosen = os.environ.get("QWEN3_CODEGEN_CACHE")
    return Path(chosen) if chosen else pytestconfig.cache.mkdir("engines")


@pytest.fixture(scope="session", autouse=True)
def in_engine_cache(engine_cache: Path) -> Iterator[None]:
    """No test compiles what another has compiled, or writes to the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN3_CODEGEN_CACHE", str(engine_cache))
        yield


@pytest.fixture(scope="session")
def reference(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str | ReferenceCase], ReferenceModel]:
    """Builds the reference model of a case, or of a case's id, once per session."""
    from tests.reference.cases import case_named
    from tests.reference.models import build_reference

    directory = tmp_path_factory.mktemp("reference")
    built: dict[str, ReferenceModel] = {}

    def get(wanted: str | ReferenceCase) -> ReferenceModel:
        case = case_named(wanted) if isinstance(wanted, str) else wanted
        if case.id not in built:
            built[case.id] = build_reference(case, directory)
        elif built[case.id].case != case:
            raise ValueError(f"two different cases are called {case.id}")
        return built[case.id]

    return get
