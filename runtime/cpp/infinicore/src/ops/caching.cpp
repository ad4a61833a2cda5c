// paged_caching and kv_caching: writing new keys and values into a cache.

#include "qwen3_api_table.hpp"

#if defined(QWEN3_OP_PAGED_CACHING) && defined(QWEN3_OP_KV_CACHING)

#include <cstring>

#include "dispatch.hpp"
#include "infiniop/ops/kv_caching.h"
#include "infiniop/ops/paged_caching.h"
#include "operator.hpp"

using namespace qwen3::infinicore;

namespace {

// Bytes from the start of a tensor to an element.
std::ptrdiff_t offset_of(const Tensor& tensor, std::initializer_list<std::size_t> index) {
  std::ptrdiff_t elements = 0;
  std::size_t i = 0;
  for (const std::size_t at : index) {
    elements += static_cast<std::ptrdiff_t>(at) * tensor.strides[i++];
  }
  return elements * static_cast<std::ptrdiff_t>(dtype_size(tensor.dtype));
}

// --- paged_caching -------------------------------------------------------------------------------

// Caches are [blocks, heads, block_size, size], new rows [tokens, heads, size].
struct PagedCachingDescriptor : InfiniopDescriptor {
  Tensor cache[2];
  Tensor rows[2];
};

infiniStatus_t check_paged_shapes(const Operands& operands) {
  const Tensor& k_cache = operands[0];
  const std::size_t tokens = operands[4].shape[0];
  for (std::size_t i = 0; i < 2; ++i) {
    const auto& cache = operands[i].shape;
    const auto& rows = operands[2 + i].shape;
    if (cache[0] != k_cache.shape[0] || cache[2] != k_cache.shape[2] || cache[1] != rows[1] ||
        cache[3] != rows[2] || rows[0] != tokens || rows[1] != operands[2].shape[1]) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "%s does not fit its cache",
                             i == 0 ? "k" : "v");
    }
  }
  return kSuccess;
}

infiniStatus_t write_slots(const PagedCachingDescriptor& own, const std::array<void*, 5>& data) {
  const auto* slots = static_cast<const std::int64_t*>(data[4]);
  const auto& shape = own.cache[0].shape;
  const auto num_slots = static_cast<std::int64_t>(shape[0] * shape[2]);
  for (std::size_t token = 0; token < own.rows[0].shape[0]; ++token) {
    if (slots[token] < 0) {
      continue;
    }
    if (slots[token] >= num_slots) {
      return fail(INFINI_STATUS_BAD_PARAM, "paged_caching: slot %lld of %lld",
                  static_cast<long long>(slots[token]), static_cast<long long>(num_slots));
    }
    const auto slot = static_cast<std::size_t>(slots[token]);
    for (std::size_t i = 0; i < 2; ++i) {
      const Tensor& cache = own.cache[i];
      for (std::size_t head = 0; head < shape[1]; ++head) {
        std::memcpy(static_cast<char*>(data[i]) +
                        offset_of(cache, {slot / shape[2], head, slot % shape[2]}),
                    static_cast<const char*>(data[2 + i]) + offset_of(own.rows[i], {token, head}),
                    cache.shape[3] * dtype_size(cache.dtype));
      }
    }
  }
  return kSuccess;
}

// --- kv_caching ----------------------------------------------------------------------------------

// Caches are [batch, heads, max_seq, size], new rows [batch, heads, seq, size].
struct KvCachingDescriptor : InfiniopDescriptor {
  Tensor cache[2];
  Tensor rows[2];
  infiniDtype_t length_dtype;
};

infiniStatus_t check_contiguous_shapes(const Operands& operands) {
  QWEN3_TRY(operands.check_same_shape(0, 1));
  QWEN3_TRY(operands.check_same_shape(2, 3));
  const auto& cache = operands[0].shape;
  const auto& rows = operands[2].shape;
  if (cache[0] != rows[0] || cache[1] != rows[1] || cache[3] != rows[3] || rows[2] > cache[2] ||
      operands[4].shape[0] != rows[0]) {
    return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "k and v do not fit their caches");
  }
  return kSuccess;
}

void copy_row(const Tensor& target, char* to, const Tensor& source, const char* from) {
  const std::size_t bytes = dtype_size(target.dtype);
  for (std::size_t i = 0; i < target.shape[3]; ++i) {
    std::memcpy(to, from, bytes);
    to += target.strides[3] * static_cast<std::ptrdiff_t>(bytes);
    from += source.strides[3] * static_cast<std::ptrdiff_t>(bytes);
  }
}

template <typename Length>
infiniStatus_t append_rows(const KvCachingDescriptor& own, const std::array<void*, 5>& data) {
  const auto* lengths = static_cast<const Length*>(data[4]);
  const auto& shape = own.rows[0].shape;
  for (std::size_t b = 0; b < shape[0]; ++b) {
    const auto past = static_cast<std::size_t>(lengths[b]);
    if (past > own.cache[0].shape[2] || past + shape[2] > own.cache[0].shape[2]) {
      return fail(INFINI_STATUS_BAD_PARAM, "kv_caching: %zu + %zu rows in a cache of %zu", past,
                  shape[2], own.cache[0].shape[2]);
    }
    for (std::size_t i = 0; i < 2; ++i) {
      for (std::size_t head = 0; head < shape[1]; ++head) {
        for (std::size_t row = 0; row < shape[2]; ++row) {
          copy_row(own.cache[i],
                   static_cast<char*>(data[i]) + offset_of(own.cache[i], {b, head, past + row}),
                   own.rows[i],
                   static_cast<const char*>(data[2 + i]) + offset_of(own.rows[i], {b, head, row}));
        }
      }
    }
  }
  return kSuccess;
}

}  // namespace

infiniStatus_t infiniopCreatePagedCachingDescriptor(infiniopHandle_t handle,
                                                    infiniopPagedCachingDescriptor_t* desc_ptr,
                                                    infiniopTensorDescriptor_t k_cache,
                                                    infiniopTensorDescriptor_t v_cache,
                                                    infiniopTensorDescriptor_t k,
                                                    infiniopTensorDescriptor_t v,
                                                    infiniopTensorDescriptor_t slot_mapping) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kPagedCachingRules, {k_cache, v_cache, k, v, slot_mapping});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(check_paged_shapes(operands));
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<PagedCachingDescriptor>();
    descriptor->cache[0] = *k_cache;
    descriptor->cache[1] = *v_cache;
    descriptor->rows[0] = *k;
    descriptor->rows[1] = *v;
    return finish_create(operands, operands.in_order(), std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetPagedCachingWorkspaceSize(infiniopPagedCachingDescriptor_t desc,
                                                    size_t* size) {
  return workspace_size_of(kPagedCachingRules, desc, size);
}

infiniStatus_t infiniopPagedCaching(infiniopPagedCachingDescriptor_t desc, void* workspace,
                                    size_t workspace_size, void* k_cache, void* v_cache,
                                    const void* k, const void* v, const void* slot_mapping,
                                    void* stream) {
  return run<PagedCachingDescriptor, 5>(kPagedCachingRules, desc, {workspace, workspace_size},
                                        stream, {k_cache, v_cache, k, v, slot_mapping},
                                        write_slots);
}

infiniStatus_t infiniopDestroyPagedCachingDescriptor(infiniopPagedCachingDescriptor_t desc) {
  return destroy(kPagedCachingRules, desc);
}

infiniStatus_t infiniopCreateKVCachingDescriptor(infiniopHandle_t handle,
                                                 infiniopKVCachingDescriptor_t* desc_ptr,
                                                 infiniopTensorDescriptor_t k_cache,
                                                 infiniopTensorDescriptor_t v_cache,
                                                 infiniopTensorDescriptor_t k,
                                                 infiniopTensorDescriptor_t v,
                                                 infiniopTensorDescriptor_t past_kv_lengths) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kKVCachingRules, {k_cache, v_cache, k, v, past_kv_lengths});
    QWEN3_TRY(operands.check());
    QWEN3_TRY(check_contiguous_shapes(operands));
    QWEN3_TRY(operands.check_strides());
    auto descriptor = std::make_unique<KvCachingDescriptor>();
    descriptor->cache[0] = *k_cache;
    descriptor->cache[1] = *v_cache;
    descriptor->rows[0] = *k;
    descriptor->rows[1] = *v;
    descriptor->length_dtype = past_kv_lengths->dtype;
    return finish_create(operands, operands.in_order(), std::move(descriptor), desc_ptr);
  });
}

infiniStatus_t infiniopGetKVCachingWorkspaceSize(infiniopKVCachingDescriptor_t desc, size_t* size) {
  return workspace_size_of(kKVCachingRules, desc, size);
}

infiniStatus_t infiniopKVCaching(infiniopKVCachingDescriptor_t desc, void* workspace,
                                 size_t workspace_size, void* k_cache, void* v_cache, const void* k,
                                 const void* v, const void* past_kv_lengths, void* stream) {
  return run<KvCachingDescriptor, 5>(
      kKVCachingRules, desc, {workspace, workspace_size}, stream,
      {k_cache, v_cache, k, v, past_kv_lengths},
      [](const KvCachingDescriptor& own, const std::array<void*, 5>& data) {
        return own.length_dtype == INFINI_DTYPE_I32 ? append_rows<std::int32_t>(own, data)
                                                    : append_rows<std::int64_t>(own, data);
      });
}

infiniStatus_t infiniopDestroyKVCachingDescriptor(infiniopKVCachingDescriptor_t desc) {
  return destroy(kKVCachingRules, desc);
}

#endif  // QWEN3_OP_PAGED_CACHING && QWEN3_OP_KV_CACHING
