// Engine of qwen3-1.7b (qwen3) for cpu in bfloat16, on InfiniCore 0.1.0.
// Entry point of the C library; the other functions of qwen3_engine.h are shared by all engines.
#include "c_api/c_api.hpp"

#include <memory>

namespace qwen3_1_7b_cpu {
std::unique_ptr<qwen3::Engine> make_engine(const qwen3::EngineOptions& options);  // engine.cpp
}

qwen3_status qwen3_engine_create(const qwen3_engine_options* options, qwen3_engine** engine) {
  return qwen3::create_c_engine(&qwen3_1_7b_cpu::make_engine, options, engine);
}
