// The C functions of qwen3_engine.h, compiled once and shared by every engine's c_api.cpp.
#pragma once

#include "c_api/qwen3_engine.h"
#include "engine/factory.hpp"

namespace qwen3 {

// qwen3_engine_create for the engine that `factory` makes. It lies beside the other C functions, so
// that a library that calls it holds them all.
qwen3_status create_c_engine(EngineFactory factory, const qwen3_engine_options* options,
                             qwen3_engine** engine) noexcept;

}  // namespace qwen3
