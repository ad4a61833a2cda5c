// What every generated engine is, seen from the runtime.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "engine/batch.hpp"

namespace qwen3 {

// Gives an engine its weights, one tensor at a time, in the order the engine asks.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // Calls `use` with host memory that holds the named weight, row-major, in the dtype the engine's
  // manifest gives; weights outside the layers have no `layer`. Throws when the weight is not there
  // or has another size than `num_bytes`.
  virtual void with_weight(const std::string& name, std::optional<size_t> layer, size_t num_bytes,
                           void (*use)(void* context, const void* host), void* context) = 0;

  // Host memory with the named weight that stays as it is for as long as the engine lives, or null
  // when the source cannot promise that; then the engine copies what `with_weight` shows.
  virtual const void* adopt(const std::string& name, std::optional<size_t> layer,
                            size_t num_bytes) {
    static_cast<void>(name), static_cast<void>(layer), static_cast<void>(num_bytes);
    return nullptr;
  }
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual size_t vocab_size() const = 0;
  virtual const EngineOptions& options() const = 0;
  virtual const std::vector<CacheGroup>& cache_groups() const = 0;

  // Must be called once, before the first forward.
  virtual void load_weights(WeightSource& source) = 0;

  // Runs one step; `logits` receives [batch.logit_rows.size, vocab_size] float32 on the host.
  // Throws EngineFailure on a bad batch (nothing has been changed then) or a failing operator.
  virtual void forward(const Batch& batch, float* logits) = 0;
};

}  // namespace qwen3
