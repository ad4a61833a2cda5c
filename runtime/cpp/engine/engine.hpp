// What every generated engine is, seen from the runtime.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "engine/batch.hpp"

namespace qwen3 {

class Device;
class Trace;
struct Tensor;

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

  // Copies keys and values of blocks of a paged cache group: block sources[i] to destinations[i],
  // in every layer of the group, bit for bit. No destination is named twice or is a source. Throws
  // EngineFailure when it is not so, a block is out of range or the group has none; nothing has
  // been changed then.
  virtual void copy_blocks(size_t group, Int32Span sources, Int32Span destinations) = 0;

  // Where the steps that follow put their values, null: nowhere. Only engines that were built with
  // --trace put any; `forward` of the others has no trace of this.
  void trace_to(Trace* trace) { trace_ = trace; }

 protected:
  // Called by such engines as soon as a value is computed: outside the layers, in a layer, and for
  // rows [first_row, first_row + value.shape[0]) of a value of the epilogue.
  void trace(const char* name, const Tensor& value) const;
  void trace(size_t layer, const char* name, const Tensor& value) const;
  void trace_rows(size_t first_row, const char* name, const Tensor& value) const;
  // The same for rows of a value of a layer.
  void trace_rows(size_t layer, size_t first_row, const char* name, const Tensor& value) const;

  virtual const Device& device() const = 0;

 private:
  Trace* trace_ = nullptr;
};

}  // namespace qwen3
