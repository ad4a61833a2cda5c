// What engines of both lowerings hold: what the engine is, its limits, its device, its cache groups
// and the step in flight.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/device.hpp"
#include "engine/engine.hpp"
#include "engine/tensor.hpp"

namespace qwen3 {

// What a generated engine is, beside its layers.
struct EngineTraits {
  DeviceTarget target;
  infiniDtype_t dtype;  // of activations
  size_t num_layers;
  size_t vocab_size;
  size_t max_position_embeddings;
};

class EngineBase : public Engine {
 public:
  size_t vocab_size() const override { return traits_.vocab_size; }
  const EngineOptions& options() const override { return options_; }
  const std::vector<CacheGroup>& cache_groups() const override { return cache_groups_; }
  void copy_blocks(size_t group, Int32Span sources, Int32Span destinations) override;

 protected:
  // Throws EngineFailure when `options` are beyond the model.
  EngineBase(const EngineTraits& traits, const EngineOptions& options,
             std::vector<CacheGroup> cache_groups);

  // Checks `batch` against the options before anything is changed.
  void begin_step(const Batch& batch);
  const Device& device() const override { return device_; }
  // Copies blocks that have been checked, in every layer of a paged group; an engine without paged
  // groups is never asked to.
  virtual void copy_checked_blocks(const CacheGroup& group, Int32Span sources,
                                   Int32Span destinations);

  const EngineTraits traits_;
  const EngineOptions options_;
  Device device_;
  const std::vector<CacheGroup> cache_groups_;
  std::vector<size_t> cache_group_of_layer_;  // [num_layers]

  const Batch* batch_ = nullptr;  // the step in flight
  size_t num_tokens_ = 0;
};

}  // namespace qwen3
