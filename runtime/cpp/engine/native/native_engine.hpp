// Base of engines in the native lowering: weights, buffers, paged cache and the step in flight.
//
// For the CPU itself, whose memory infinirt gives and kernels read directly.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "engine/device.hpp"
#include "engine/engine.hpp"
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

// What a generated engine is, beside its layers.
struct NativeTraits {
  DeviceTarget target;
  infiniDtype_t dtype;  // of activations, caches and matrices
  size_t num_layers;
  size_t vocab_size;
  size_t max_position_embeddings;
};

class NativeEngine : public Engine {
 public:
  size_t vocab_size() const override { return traits_.vocab_size; }
  const EngineOptions& options() const override { return options_; }
  const std::vector<CacheGroup>& cache_groups() const override { return cache_groups_; }

 protected:
  // Throws EngineFailure when `options` are beyond the model.
  NativeEngine(const NativeTraits& traits, const EngineOptions& options,
               std::vector<CacheGroup> cache_groups);

  // Memory that lives as long as the engine; its pages are taken when they are first written.
  Tensor allocate(infiniDtype_t dtype, std::initializer_list<size_t> shape);
  // One weight: where `source` keeps it if that may be, else a copy.
  Tensor bind(WeightSource& source, const char* name, infiniDtype_t dtype,
              std::initializer_list<size_t> shape);
  Tensor bind(WeightSource& source, size_t layer, const char* name, infiniDtype_t dtype,
              std::initializer_list<size_t> shape);
  // Tables of the frequencies `inv_freq` [pairs], both multiplied by `attention_factor`.
  AngleTables angle_tables(const float* inv_freq, size_t pairs, float attention_factor);

  // Checks `batch` against the options and finds every sequence's rows and blocks.
  void begin_step(const Batch& batch);
  // The sequences of the step with their blocks in a layer's cache group, [num_seqs].
  const std::vector<kernels::SequenceRows>& sequences(size_t layer) const {
    return sequences_[cache_group_of_layer_[layer]];
  }
  // Brings [rows, columns] logits of the activation dtype to `host` as float32.
  void read_logits(const Tensor& logits, float* host) const;

  const NativeTraits traits_;
  const EngineOptions options_;
  Device device_;
  const std::vector<CacheGroup> cache_groups_;
  std::vector<PagedLayerCache> cache_;        // [num_layers]
  std::vector<size_t> cache_group_of_layer_;  // [num_layers]

  const Batch* batch_ = nullptr;  // the step in flight
  size_t num_tokens_ = 0;

 private:
  const Device& device() const override { return device_; }
  void allocate_cache();
  Tensor bind_from(WeightSource& source, const char* name, std::optional<size_t> layer,
                   infiniDtype_t dtype, std::initializer_list<size_t> shape);

  std::vector<DeviceMemory> memory_;
  std::vector<std::vector<kernels::SequenceRows>> sequences_;  // per cache group
};

}  // namespace qwen3
