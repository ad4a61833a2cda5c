"""Built libraries, shared by the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen3_codegen.errors import InfiniCoreError
from qwen3_codegen.infinicore.api import RELEASES
from qwen3_codegen.infinicore.install import InstalledInfiniCore, default_root, install, probe
from tests.infinicore.abi import Library
from tests.infinicore.builds import Build, Builder


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("infinicore"))


@pytest.fixture(scope="session", params=RELEASES)
def any_release(request: pytest.FixtureRequest, builder: Builder) -> Library:
    """The embedded library, once for each API release."""
    return embedded(builder, request.param)


@pytest.fixture(scope="session")
def library(builder: Builder) -> Library:
    """The embedded library of the newest release, which has the most operators."""
    return embedded(builder, "2026-08")


@pytest.fixture(scope="session")
def registry_root() -> InstalledInfiniCore:
    """InfiniCore 0.1.0 as the package registry has it, where the tests of engines have it too."""
    try:
        return probe(install(default_root("0.1.0")))
    except InfiniCoreError as error:
        # Without a network; the embedded library is held to its headers and rules all the same.
        pytest.skip(f"InfiniCore 0.1.0 cannot be had: {error}")


@pytest.fixture(scope="session")
def registry(registry_root: InstalledInfiniCore) -> Library:
    return Library.installed("0.1.0", registry_root.lib_dir)


def embedded(builder: Builder, release: str) -> Library:
    # The kernels are the same for all releases, so only one is worth the time to optimise.
    folder = builder.make(Build(release, optimised=release == "2026-08"))
    return Library.single(release, folder / "libinfinicore_single.so")


@pytest.fixture(autouse=True)
def _cpu_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """The thread's device is CPU before and after each test."""
    libraries = [
        request.getfixturevalue(name)
        for name in ("library", "any_release")
        if name in request.fixturenames
    ]
    for one in libraries:
        one.set_device("cpu")
    yield
    for one in libraries:
        one.set_device("cpu")
