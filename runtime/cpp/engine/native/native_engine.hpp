// Base of engines in the native lowering: weights, buffers, paged cache and the step in flight.
//
// For the CPU itself, whose memory infinirt gives and kernels read directly.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "engine/device.hpp"
#include "engine/engine_base.hpp"
#include "engine/tensor.hpp"
#include "kernels/native/paged_cache.hpp"

namespace qwen3 {

// Keys and values of one layer; see kernels::PagedCache.
struct PagedLayerCache {
  std::byte* keys;
  std::byte* values;
};

// Sines and cosines of every position below max_model_len, float32, [max_model_len, pairs].
struct AngleTables {
  const float* sine;
  const float* cosine;
  size_t pairs;
};

class NativeEngine : public EngineBase {
 protected:
  // Throws EngineFailure when `options` are beyond the model.
  NativeEngine(const EngineTraits& traits, const EngineOptions& options,
               std::vector<CacheGroup> cache_groups);

  // Memory that lives as long as the engine; its pages are taken when they are first written.
  Tensor allocate(infiniDtype_t dtype, std::initializer_list<size_t> shape);
  // One weight: where `source` keeps it if that may be, else a copy.
  Tensor bind(WeightSource& source, const char* name, infiniDtype_t dtype,
              std::initializer_list<size_t> shape);
  Tensor bind(WeightSource& source, size_t layer, const char* name, infiniDtype_t dtype,
              std::initializer_list<size_t> shape);
  // A weight [count, rows, columns] that `source` has as `count` matrices, `name.0` onwards, so
  // that each may stay where it is: the experts of a layer.
  std::vector<Tensor> bind_each(WeightSource& source, size_t layer, const char* name,
                                infiniDtype_t dtype, const std::array<size_t, 3>& shape);
  // Tables of the frequencies `inv_freq` [pairs], both multiplied by `attention_factor`.
  AngleTables angle_tables(const float* inv_freq, size_t pairs, float attention_factor);

  // Checks `batch` against the options and finds every sequence's rows and blocks.
  void begin_step(const Batch& batch);
  // The sequences of the step with their blocks in a layer's cache group, [num_seqs].
  const std::vector<kernels::SequenceRows>& sequences(size_t layer) const {
    return sequences_[cache_group_of_layer_[layer]];
  }
  // Shows what the step's tokens have in a layer's cache, both [num_tokens, heads, head_dim].
  void trace_cache(size_t layer, const char* keys, const char* values) const;
  // Brings [rows, columns] logits of the activation dtype to `host` as float32.
  void read_logits(const Tensor& logits, float* host) const;

  std::vector<PagedLayerCache> cache_;  // [num_layers]

 private:
  void allocate_cache();
  void copy_checked_blocks(const CacheGroup& group, Int32Span sources,
                           Int32Span destinations) override;
  Tensor bind_from(WeightSource& source, const std::string& name, std::optional<size_t> layer,
                   infiniDtype_t dtype, std::initializer_list<size_t> shape);

  std::vector<DeviceMemory> memory_;
  std::vector<std::vector<kernels::SequenceRows>> sequences_;  // per cache group
};

}  // namespace qwen3
