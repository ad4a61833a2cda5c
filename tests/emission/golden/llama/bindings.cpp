// Engine of llama (llama) for cpu in float32, on InfiniCore 0.1.0.
// Entry point of the Python module; the bindings are compiled once and shared by all engines.
#include "bindings/bindings.hpp"

#include <memory>

namespace llama_cpu {
std::unique_ptr<qwen3::Engine> make_engine(const qwen3::EngineOptions& options);  // engine.cpp
}

extern "C" __attribute__((visibility("default"))) _object* PyInit__engine() {
  return qwen3::init_engine_module("_engine", &llama_cpu::make_engine);
}
