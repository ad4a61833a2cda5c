// How an engine is made, for those that pass it on and need not know what it is.
#pragma once

#include <memory>

namespace qwen3 {

class Engine;
struct EngineOptions;

using EngineFactory = std::unique_ptr<Engine> (*)(const EngineOptions& options);

}  // namespace qwen3
