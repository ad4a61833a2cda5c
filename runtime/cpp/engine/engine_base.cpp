#include "engine/engine_base.hpp"

#include <utility>

#include "engine/batch_checks.hpp"
#include "engine/check.hpp"

namespace qwen3 {

EngineBase::EngineBase(const EngineTraits& traits, const EngineOptions& options,
                       std::vector<CacheGroup> cache_groups)
    : traits_(traits),
      options_(checked_options(options, traits.max_position_embeddings)),
      device_(traits.target, options.device_id),
      cache_groups_(std::move(cache_groups)),
      cache_group_of_layer_(traits.num_layers) {
  for (size_t group = 0; group < cache_groups_.size(); ++group) {
    for (int32_t layer : cache_groups_[group].layers) cache_group_of_layer_[layer] = group;
  }
}

void EngineBase::copy_blocks(size_t group, Int32Span sources, Int32Span destinations) {
  check_block_copies(group, sources, destinations, options_, cache_groups_);
  device_.activate();
  copy_checked_blocks(cache_groups_[group], sources, destinations);
}

void EngineBase::copy_checked_blocks(const CacheGroup& group, Int32Span, Int32Span) {
  throw EngineFailure("cache group " + group.name + " cannot be copied by this engine");
}

void EngineBase::begin_step(const Batch& batch) {
  check_batch(batch, options_, traits_.vocab_size, cache_groups_);
  device_.activate();
  batch_ = &batch;
  num_tokens_ = batch.token_ids.size;
}

}  // namespace qwen3
