"""``EnginePlan`` in, the files of an engine out; equal plans give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwen3_codegen.distribution import DISTRIBUTION, distribution_version
from qwen3_codegen.emission.cpp import CppIdentifier
from qwen3_codegen.emission.engine_view import OWN_FOLDER, OWN_OPS_FILE, engine_title, engine_view
from qwen3_codegen.emission.manifest import manifest_text
from qwen3_codegen.emission.operators_view import operators_view
from qwen3_codegen.emission.region_view import region_view
from qwen3_codegen.emission.render import Renderer
from qwen3_codegen.emission.views import ProjectView
from qwen3_codegen.infinicore.api import InfiniCoreApi
from qwen3_codegen.plan.records import EnginePlan, RegionPlan


def emit_engine(
    plan: EnginePlan,
    api: InfiniCoreApi,
    regenerate: str,
    isa_flags: Sequence[str] = ("-march=native",),
) -> Mapping[str, str]:
    """Returns the text of every file of an engine's folder, by name.

    Args:
        plan: The plan.
        api: InfiniCore's API of the plan's release.
        regenerate: Command line that makes the folder again, for the head of the sources.
        isa_flags: Compiler flags of the instruction set that is chosen unless told otherwise.
    """
    renderer = Renderer()

    def body_of(region: RegionPlan) -> str:
        return renderer.render("region.cpp.jinja", region_view(region))

    engine = engine_view(plan, regenerate, body_of)
    project = _project_view(plan, isa_flags)
    files = {name: renderer.render(f"{name}.jinja", project) for name in _PROJECT_FILES}
    if plan.target.lowering == "native":
        for name in ("engine.hpp", "engine.cpp", "kernels.cpp"):
            files[name] = renderer.render(f"native/{name}.jinja", engine)
        if plan.own_headers:
            files |= _own_headers(plan)
            files[OWN_OPS_FILE] = renderer.render(f"native/{OWN_OPS_FILE}.jinja", engine)
    else:
        for name in ("engine.hpp", "engine.cpp"):
            files[name] = renderer.render(f"{name}.jinja", engine)
        operators = operators_view(plan, api)
        files["infinicore_ops.hpp"] = renderer.render("infinicore_ops.hpp.jinja", operators)
    return {**files, "manifest.json": manifest_text(plan)}


_PROJECT_FILES = (
    "bindings.cpp",
    "c_api.cpp",
    "CMakeLists.txt",
    "pyproject.toml",
    "__init__.py",
    "__init__.pyi",
)
"""Build files, entry points and the Python package; the same in every lowering."""


def _own_headers(plan: EnginePlan) -> Mapping[str, str]:
    """The user's own C++, word for word."""
    return {
        f"{OWN_FOLDER}/{name}": text
        for texts in plan.own_headers.values()
        for name, text in texts.items()
    }


def _runtime_requirement() -> str:
    """Pins the version: an index may hold something else under the name, or another release."""
    version = distribution_version()
    return DISTRIBUTION if version is None else f"{DISTRIBUTION}=={version}"


def _project_view(plan: EnginePlan, isa_flags: Sequence[str]) -> ProjectView:
    module = CppIdentifier(plan.module_name)
    return ProjectView(
        title=engine_title(plan).replace('"', "'"),
        cpp_namespace=module,
        module_name=module,
        distribution_name=module.replace("_", "-"),
        runtime_requirement=_runtime_requirement(),
        release=plan.target.release,
        isa_flags=" ".join(isa_flags),
        sources="engine.cpp kernels.cpp" if plan.target.lowering == "native" else "engine.cpp",
    )
