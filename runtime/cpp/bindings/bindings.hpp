// Python face of an engine, compiled once and shared by every engine's bindings.cpp.
#pragma once

#include "engine/factory.hpp"

struct _object;  // PyObject, without Python's headers

namespace qwen3 {

// Creates the module `name` around the engine that `factory` makes; for a PyInit function.
_object* init_engine_module(const char* name, EngineFactory factory);

}  // namespace qwen3
