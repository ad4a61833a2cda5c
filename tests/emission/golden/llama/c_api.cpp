// Engine of llama (llama) for cpu in float32, on InfiniCore 0.1.0.
// Entry point of the C library; the other functions of qwen3_engine.h are shared by all engines.
#include "c_api/c_api.hpp"

#include <memory>

namespace llama_cpu {
std::unique_ptr<qwen3::Engine> make_engine(const qwen3::EngineOptions& options);  // engine.cpp
}

qwen3_status qwen3_engine_create(const qwen3_engine_options* options, qwen3_engine** engine) {
  return qwen3::create_c_engine(&llama_cpu::make_engine, options, engine);
}
