// Base of engines in the portable lowering: device, weights, buffers, cache and the step in flight.
//
// Everything here goes through infinirt, on the CPU as on any device, so that a missing copy
// between host and device is a fault that shows everywhere.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "engine/device.hpp"
#include "engine/engine.hpp"
#include "engine/tensor.hpp"

namespace qwen3 {

// Total lengths are padded to multiples of this, so that descriptors are reused from step to step.
constexpr size_t kLengthBucket = 64;

constexpr size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Keys and values of one layer, [num_slots, num_key_value_heads, capacity, head_dim].
struct LayerCache {
  Tensor keys;
  Tensor values;
};

// Sines and cosines of every position below max_model_len, in the activation dtype.
struct RopeTables {
  Tensor sin;  // [max_model_len, rotary_dim / 2]
  Tensor cos;
};

// `values` as bytes of `dtype`, rounded to nearest even.
std::vector<std::byte> stored_as(infiniDtype_t dtype, const std::vector<float>& values);

// What a generated engine is, beside its layers.
struct EngineTraits {
  DeviceTarget target;
  infiniDtype_t dtype;  // of activations, caches and matrices
  size_t num_layers;
  size_t vocab_size;
  size_t max_position_embeddings;
};

class PortableEngine : public Engine {
 public:
  size_t vocab_size() const override { return traits_.vocab_size; }
  const EngineOptions& options() const override { return options_; }
  const std::vector<CacheGroup>& cache_groups() const override { return cache_groups_; }

 protected:
  // Throws EngineFailure when `options` are beyond the model.
  PortableEngine(const EngineTraits& traits, const EngineOptions& options,
                 std::vector<CacheGroup> cache_groups);

  // Zero-filled device memory that lives as long as the engine.
  Tensor allocate(infiniDtype_t dtype, std::initializer_list<size_t> shape);
  // Reads one weight from `source` and copies it to the device.
  Tensor upload(WeightSource& source, const char* name, infiniDtype_t dtype,
                std::initializer_list<size_t> shape);
  Tensor upload(WeightSource& source, size_t layer, const char* name, infiniDtype_t dtype,
                std::initializer_list<size_t> shape);
  // A scalar of the activation dtype on the device, shape [1].
  Tensor constant(float value);
  // Tables of the frequencies `inv_freq` [half_dim], both multiplied by `attention_factor`.
  RopeTables rope_tables(const float* inv_freq, size_t half_dim, float attention_factor);

  // Checks `batch` against the options and brings its integers to the device.
  void begin_step(const Batch& batch);
  // Copies `rows` of a table to consecutive rows of `destination`.
  void copy_rows(const Tensor& destination, const Tensor& table, const int32_t* rows,
                 size_t count) const;
  // Brings [rows, columns] logits of the activation dtype to the host as float32.
  void read_logits(const Tensor& logits, float* host);

  const EngineTraits traits_;
  const EngineOptions options_;
  Device device_;
  const std::vector<CacheGroup> cache_groups_;
  std::vector<LayerCache> cache_;             // [num_layers]
  std::vector<size_t> cache_group_of_layer_;  // [num_layers]

  const Batch* batch_ = nullptr;  // the step in flight
  size_t num_tokens_ = 0;
  Tensor positions_;  // [num_tokens] int32

 private:
  const Device& device() const override { return device_; }
  void allocate_cache();
  Tensor upload_from(WeightSource& source, const char* name, std::optional<size_t> layer,
                     Tensor tensor) const;

  std::vector<DeviceMemory> memory_;
  Tensor position_buffer_;
  std::vector<uint16_t> half_logits_;
};

}  // namespace qwen3
