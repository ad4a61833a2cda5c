#include "engine/native/native_engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "engine/check.hpp"
#include "kernels/half.hpp"

namespace qwen3 {
namespace {

template <class Half>
void widen(const std::byte* halves, size_t count, float* values) {
  const auto* source = reinterpret_cast<const Half*>(halves);
  for (size_t i = 0; i < count; ++i) values[i] = kernels::to_float(source[i]);
}

}  // namespace

NativeEngine::NativeEngine(const EngineTraits& traits, const EngineOptions& options,
                           std::vector<CacheGroup> cache_groups)
    : EngineBase(traits, options, std::move(cache_groups)), sequences_(cache_groups_.size()) {
  allocate_cache();
}

Tensor NativeEngine::allocate(infiniDtype_t dtype, std::initializer_list<size_t> shape) {
  Tensor tensor = Tensor::contiguous(nullptr, dtype, shape);
  memory_.push_back(DeviceMemory::uninitialised(device_, tensor.num_bytes()));
  tensor.data = static_cast<std::byte*>(memory_.back().get());
  return tensor;
}

Tensor NativeEngine::bind(WeightSource& source, const char* name, infiniDtype_t dtype,
                          std::initializer_list<size_t> shape) {
  return bind_from(source, name, std::nullopt, dtype, shape);
}

Tensor NativeEngine::bind(WeightSource& source, size_t layer, const char* name, infiniDtype_t dtype,
                          std::initializer_list<size_t> shape) {
  return bind_from(source, name, layer, dtype, shape);
}

std::vector<Tensor> NativeEngine::bind_each(WeightSource& source, size_t layer, const char* name,
                                            infiniDtype_t dtype,
                                            const std::array<size_t, 3>& shape) {
  std::vector<Tensor> matrices;
  for (size_t i = 0; i < shape[0]; ++i) {
    const std::string part = name + ("." + std::to_string(i));
    matrices.push_back(bind_from(source, part, layer, dtype, {shape[1], shape[2]}));
  }
  return matrices;
}

Tensor NativeEngine::bind_from(WeightSource& source, const std::string& name,
                               std::optional<size_t> layer, infiniDtype_t dtype,
                               std::initializer_list<size_t> shape) {
  Tensor tensor = Tensor::contiguous(nullptr, dtype, shape);
  if (const void* kept = source.adopt(name, layer, tensor.num_bytes())) {
    // Weights are never written; Tensor has no constant form.
    tensor.data = static_cast<std::byte*>(const_cast<void*>(kept));
    return tensor;
  }
  tensor = allocate(dtype, shape);
  source.with_weight(
      name, layer, tensor.num_bytes(),
      [](void* context, const void* host) {
        const auto& target = *static_cast<const Tensor*>(context);
        std::memcpy(target.data, host, target.num_bytes());
      },
      &tensor);
  return tensor;
}

AngleTables NativeEngine::angle_tables(const float* inv_freq, size_t pairs,
                                       float attention_factor) {
  const Tensor sine = allocate(INFINI_DTYPE_F32, {options_.max_model_len, pairs});
  const Tensor cosine = allocate(INFINI_DTYPE_F32, {options_.max_model_len, pairs});
  auto* sines = reinterpret_cast<float*>(sine.data);
  auto* cosines = reinterpret_cast<float*>(cosine.data);
  for (size_t position = 0; position < options_.max_model_len; ++position) {
    for (size_t i = 0; i < pairs; ++i) {
      // float32 throughout, as transformers computes its tables.
      const float angle = static_cast<float>(position) * inv_freq[i];
      sines[position * pairs + i] = std::sin(angle) * attention_factor;
      cosines[position * pairs + i] = std::cos(angle) * attention_factor;
    }
  }
  return {sines, cosines, pairs};
}

void NativeEngine::allocate_cache() {
  cache_.resize(traits_.num_layers);
  for (const CacheGroup& shape : cache_groups_) {
    require(shape.kind == CacheKind::kPaged, "a native engine has paged caches only");
    require(options_.num_blocks > 0, "a paged cache needs num_blocks");
    for (int32_t layer : shape.layers) {
      const auto blocks = {options_.num_blocks, shape.num_key_value_heads, shape.block_size,
                           shape.head_dim};
      cache_[layer] = {allocate(shape.dtype, blocks).data, allocate(shape.dtype, blocks).data};
    }
  }
}

void NativeEngine::copy_checked_blocks(const CacheGroup& group, Int32Span sources,
                                       Int32Span destinations) {
  const size_t num_bytes =
      group.num_key_value_heads * group.block_size * group.head_dim * element_size(group.dtype);
  for (int32_t layer : group.layers) {
    for (std::byte* blocks : {cache_[layer].keys, cache_[layer].values}) {
      for (size_t i = 0; i < sources.size; ++i) {
        std::memcpy(blocks + static_cast<size_t>(destinations[i]) * num_bytes,
                    blocks + static_cast<size_t>(sources[i]) * num_bytes, num_bytes);
      }
    }
  }
}

void NativeEngine::begin_step(const Batch& batch) {
  EngineBase::begin_step(batch);
  for (size_t group = 0; group < cache_groups_.size(); ++group) {
    const CachePlaces& places = batch.places[group];
    sequences_[group].clear();
    size_t first_row = 0;
    for (size_t s = 0; s < batch.query_lens.size; ++s) {
      const auto count = static_cast<size_t>(batch.query_lens[s]);
      const auto start = static_cast<size_t>(batch.seq_lens[s]) - count;
      sequences_[group].push_back(
          {places.block_table.data + s * places.max_blocks, first_row, count, start});
      first_row += count;
    }
  }
}

void NativeEngine::trace_cache(size_t layer, const char* keys, const char* values) const {
  const CacheGroup& group = cache_groups_[cache_group_of_layer_[layer]];
  const size_t size = group.block_size, heads = group.num_key_value_heads;
  const Tensor all_keys = Tensor::contiguous(cache_[layer].keys, group.dtype,
                                             {options_.num_blocks, heads, group.head_dim, size});
  const Tensor all_values = Tensor::contiguous(cache_[layer].values, group.dtype,
                                               {options_.num_blocks, heads, size, group.head_dim});
  for (const kernels::SequenceRows& sequence : sequences(layer)) {
    size_t count = 0;
    for (size_t done = 0; done < sequence.num_rows; done += count) {
      const size_t position = sequence.start + done, slot = position % size;
      count = std::min(size - slot, sequence.num_rows - done);
      const auto block = static_cast<size_t>(sequence.blocks[position / size]);
      const size_t row = sequence.first_row + done;
      trace_rows(layer, row, keys, all_keys.at(0, block).permute({2, 0, 1}).rows(slot, count));
      trace_rows(layer, row, values, all_values.at(0, block).permute({1, 0, 2}).rows(slot, count));
    }
  }
}

void NativeEngine::read_logits(const Tensor& logits, float* host) const {
  const size_t count = logits.num_elements();
  switch (traits_.dtype) {
    case INFINI_DTYPE_BF16:
      return widen<kernels::Bf16>(logits.data, count, host);
    case INFINI_DTYPE_F16:
      return widen<kernels::F16>(logits.data, count, host);
    default:
      std::memcpy(host, logits.data, count * sizeof(float));
  }
}

}  // namespace qwen3
