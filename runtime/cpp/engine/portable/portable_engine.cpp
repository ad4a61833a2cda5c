#include "engine/portable/portable_engine.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "engine/check.hpp"
#include "kernels/half.hpp"

namespace qwen3 {
namespace {

template <class Half>
void store_halves(const std::vector<float>& values, Half* halves) {
  for (size_t i = 0; i < values.size(); ++i) halves[i] = kernels::from_float<Half>(values[i]);
}

template <class Half>
void load_halves(const Half* halves, size_t count, float* values) {
  for (size_t i = 0; i < count; ++i) values[i] = kernels::to_float(halves[i]);
}

}  // namespace

std::vector<std::byte> stored_as(infiniDtype_t dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * element_size(dtype));
  if (dtype == INFINI_DTYPE_F32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  if (dtype == INFINI_DTYPE_BF16) {
    store_halves(values, reinterpret_cast<kernels::Bf16*>(bytes.data()));
  } else {
    store_halves(values, reinterpret_cast<kernels::F16*>(bytes.data()));
  }
  return bytes;
}

PortableEngine::PortableEngine(const EngineTraits& traits, const EngineOptions& options,
                               std::vector<CacheGroup> cache_groups)
    : EngineBase(traits, options, std::move(cache_groups)) {
  position_buffer_ = allocate(INFINI_DTYPE_I32, {options.max_num_batched_tokens});
  allocate_cache();
}

Tensor PortableEngine::allocate(infiniDtype_t dtype, std::initializer_list<size_t> shape) {
  Tensor tensor = Tensor::contiguous(nullptr, dtype, shape);
  memory_.emplace_back(device_, tensor.num_bytes());
  tensor.data = static_cast<std::byte*>(memory_.back().get());
  return tensor;
}

Tensor PortableEngine::upload(WeightSource& source, const char* name, infiniDtype_t dtype,
                              std::initializer_list<size_t> shape) {
  return upload_from(source, name, std::nullopt, allocate(dtype, shape));
}

Tensor PortableEngine::upload(WeightSource& source, size_t layer, const char* name,
                              infiniDtype_t dtype, std::initializer_list<size_t> shape) {
  return upload_from(source, name, layer, allocate(dtype, shape));
}

Tensor PortableEngine::upload_from(WeightSource& source, const char* name,
                                   std::optional<size_t> layer, Tensor tensor) const {
  struct Upload {
    const Device& device;
    const Tensor& tensor;
  } upload{device_, tensor};
  source.with_weight(
      name, layer, tensor.num_bytes(),
      [](void* context, const void* host) {
        const auto& target = *static_cast<const Upload*>(context);
        target.device.copy_to_device(target.tensor.data, host, target.tensor.num_bytes());
        target.device.synchronize();
      },
      &upload);
  return tensor;
}

Tensor PortableEngine::constant(float value) {
  Tensor tensor = allocate(traits_.dtype, {1});
  const std::vector<std::byte> bytes = stored_as(traits_.dtype, {value});
  device_.copy_to_device(tensor.data, bytes.data(), bytes.size());
  device_.synchronize();
  return tensor;
}

RopeTables PortableEngine::rope_tables(const float* inv_freq, size_t half_dim,
                                       float attention_factor) {
  std::vector<float> sines(options_.max_model_len * half_dim);
  std::vector<float> cosines(sines.size());
  for (size_t position = 0; position < options_.max_model_len; ++position) {
    for (size_t i = 0; i < half_dim; ++i) {
      // float32 throughout, as transformers computes its tables.
      const float angle = static_cast<float>(position) * inv_freq[i];
      sines[position * half_dim + i] = std::sin(angle) * attention_factor;
      cosines[position * half_dim + i] = std::cos(angle) * attention_factor;
    }
  }
  RopeTables tables{allocate(traits_.dtype, {options_.max_model_len, half_dim}),
                    allocate(traits_.dtype, {options_.max_model_len, half_dim})};
  const std::vector<std::byte> sine_bytes = stored_as(traits_.dtype, sines);
  const std::vector<std::byte> cosine_bytes = stored_as(traits_.dtype, cosines);
  device_.copy_to_device(tables.sin.data, sine_bytes.data(), sine_bytes.size());
  device_.copy_to_device(tables.cos.data, cosine_bytes.data(), cosine_bytes.size());
  device_.synchronize();
  return tables;
}

void PortableEngine::allocate_cache() {
  const size_t capacity = round_up(options_.max_model_len, kLengthBucket);
  cache_.resize(traits_.num_layers);
  for (const CacheGroup& shape : cache_groups_) {
    require(shape.kind == CacheKind::kContiguous, "a portable engine has contiguous caches only");
    for (int32_t layer : shape.layers) {
      const auto rows = {options_.max_num_seqs, shape.num_key_value_heads, capacity,
                         shape.head_dim};
      cache_[layer] = {allocate(traits_.dtype, rows), allocate(traits_.dtype, rows)};
    }
  }
}

void PortableEngine::begin_step(const Batch& batch) {
  EngineBase::begin_step(batch);
  positions_ = position_buffer_.rows(0, num_tokens_);
  device_.copy_to_device(positions_.data, batch.positions.data, positions_.num_bytes());
}

void PortableEngine::copy_rows(const Tensor& destination, const Tensor& table, const int32_t* rows,
                               size_t count) const {
  const size_t row_bytes = table.shape[1] * element_size(table.dtype);
  const auto stride_bytes = [](const Tensor& tensor) {
    return static_cast<size_t>(tensor.strides[0]) * element_size(tensor.dtype);
  };
  const bool is_packed = stride_bytes(destination) == row_bytes && stride_bytes(table) == row_bytes;
  for (size_t i = 0; i < count;) {
    size_t run = 1;  // neighbouring rows go in one copy
    while (is_packed && i + run < count && rows[i + run] == rows[i] + static_cast<int32_t>(run)) {
      ++run;
    }
    device_.copy_on_device(destination.data + i * stride_bytes(destination),
                           table.data + rows[i] * stride_bytes(table), run * row_bytes);
    i += run;
  }
}

void PortableEngine::read_logits(const Tensor& logits, float* host) {
  const size_t count = logits.num_elements();
  if (traits_.dtype == INFINI_DTYPE_F32) {
    device_.copy_to_host(host, logits.data, count * sizeof(float));
    device_.synchronize();
    return;
  }
  half_logits_.resize(count);
  device_.copy_to_host(half_logits_.data(), logits.data, count * sizeof(uint16_t));
  device_.synchronize();
  if (traits_.dtype == INFINI_DTYPE_BF16) {
    load_halves(reinterpret_cast<const kernels::Bf16*>(half_logits_.data()), count, host);
  } else {
    load_halves(reinterpret_cast<const kernels::F16*>(half_logits_.data()), count, host);
  }
}

}  // namespace qwen3
