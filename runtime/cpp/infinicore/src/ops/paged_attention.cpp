// paged_attention (one query token per sequence) and paged_attention_prefill (packed queries).
//
// No CPU build of the library has these; they are here for the devices that are emulated.

#include "qwen3_api_table.hpp"

#if defined(QWEN3_OP_PAGED_ATTENTION) && defined(QWEN3_OP_PAGED_ATTENTION_PREFILL)

#include <algorithm>

#include "dispatch.hpp"
#include "infiniop/ops/paged_attention.h"
#include "infiniop/ops/paged_attention_prefill.h"
#include "operator.hpp"
#include "parallel.hpp"
#include "softmax.hpp"

using namespace qwen3::infinicore;
namespace kernels = qwen3::kernels;

namespace {

struct PagedAttentionDescriptor : InfiniopDescriptor {
  Tensor out;  // [tokens, heads, value_size]
  Tensor q;    // [tokens, heads, head_size]
  Tensor k;    // [blocks, kv_heads, block_size, head_size]
  Tensor v;    // [blocks, kv_heads, block_size, value_size]
  infiniDtype_t index_dtype;
  std::size_t num_seqs;
  std::size_t max_blocks;
  float scale;
};

// One query token: where it stands in q and out, its sequence, and how many keys it sees.
struct Query {
  std::size_t token;
  std::size_t seq;
  std::size_t visible;
};

// The shared checks; operands are out, q, k_cache, v_cache, block_tables, seq_lens, ...
infiniStatus_t check_shapes(const Operands& operands) {
  const auto& out = operands[0].shape;
  const auto& q = operands[1].shape;
  const auto& k = operands[2].shape;
  const auto& v = operands[3].shape;
  constexpr std::size_t kHeadSizes[] = {64, 128, 192, 256, 576};
  if (std::find(std::begin(kHeadSizes), std::end(kHeadSizes), q[2]) == std::end(kHeadSizes) ||
      v[3] != (q[2] == 576 && v[3] == 512 ? 512 : q[2])) {
    return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "heads of %zu, values of %zu", q[2],
                           v[3]);
  }
  if (k[1] == 0 || q[1] % k[1] != 0 || k[3] != q[2] || v[0] != k[0] || v[1] != k[1] ||
      v[2] != k[2] || out[0] != q[0] || out[1] != q[1] || out[2] != v[3]) {
    return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "q, out and the caches do not fit");
  }
  return kSuccess;
}

std::unique_ptr<PagedAttentionDescriptor> describe(const Operands& operands, float scale) {
  auto descriptor = std::make_unique<PagedAttentionDescriptor>();
  descriptor->out = operands[0];
  descriptor->q = operands[1];
  descriptor->k = operands[2];
  descriptor->v = operands[3];
  descriptor->index_dtype = operands[4].dtype;
  descriptor->num_seqs = operands[5].shape[0];
  descriptor->max_blocks = operands[4].shape[1];
  descriptor->scale = scale;
  return descriptor;
}

std::ptrdiff_t offset_of(const Tensor& tensor, std::size_t i, std::size_t j, std::size_t k = 0) {
  return static_cast<std::ptrdiff_t>(i) * tensor.strides[0] +
         static_cast<std::ptrdiff_t>(j) * tensor.strides[1] +
         (k > 0 ? static_cast<std::ptrdiff_t>(k) * tensor.strides[2] : 0);
}

template <typename T>
struct Addresses {
  T* out;
  const T* q;
  const T* k;
  const T* v;
  const float* slopes;
};

// One head of one query over blocks[0 .. visible / block_size].
template <typename T>
void attend(const PagedAttentionDescriptor& own, const Addresses<T>& at, const Query& query,
            std::size_t head, const std::vector<std::size_t>& blocks) {
  const std::size_t kv_head = head / (own.q.shape[1] / own.k.shape[1]);
  const std::size_t block_size = own.k.shape[2];
  const T* q = at.q + offset_of(own.q, query.token, head);
  std::vector<float> weights(query.visible);
  for (std::size_t j = 0; j < query.visible; ++j) {
    const T* key = at.k + offset_of(own.k, blocks[j / block_size], kv_head, j % block_size);
    float score = 0.0f;
    for (std::size_t i = 0; i < own.q.shape[2]; ++i) {
      score += kernels::to_float(q[i]) * kernels::to_float(key[i]);
    }
    const float distance = static_cast<float>(query.visible - 1 - j);
    weights[j] = score * own.scale - (at.slopes != nullptr ? at.slopes[head] * distance : 0.0f);
  }
  kernels::softmax_row(weights.data(), 1, weights.data(), 1, query.visible, query.visible);
  std::vector<float> sums(own.v.shape[3], 0.0f);
  for (std::size_t j = 0; j < query.visible; ++j) {
    const T* value = at.v + offset_of(own.v, blocks[j / block_size], kv_head, j % block_size);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      sums[i] += weights[j] * kernels::to_float(value[i]);
    }
  }
  T* out = at.out + offset_of(own.out, query.token, head);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    out[i] = kernels::from_float<T>(sums[i]);
  }
}

// The blocks of a sequence that hold `length` keys, or BAD_PARAM for one outside the cache.
infiniStatus_t read_blocks(const PagedAttentionDescriptor& own,
                           const std::vector<std::int64_t>& tables, std::size_t seq,
                           std::size_t length, std::vector<std::size_t>& blocks) {
  const std::size_t block_size = own.k.shape[2];
  const std::size_t count = (length + block_size - 1) / block_size;
  if (count > own.max_blocks) {
    return fail(INFINI_STATUS_BAD_PARAM, "paged attention: %zu keys in %zu blocks of %zu", length,
                own.max_blocks, block_size);
  }
  blocks.assign(count, 0);
  for (std::size_t i = 0; i < count; ++i) {
    blocks[i] = static_cast<std::size_t>(tables[seq * own.max_blocks + i]);
    if (blocks[i] >= own.k.shape[0]) {
      return fail(INFINI_STATUS_BAD_PARAM, "paged attention: block %zu of %zu", blocks[i],
                  own.k.shape[0]);
    }
  }
  return kSuccess;
}

template <typename T>
infiniStatus_t attend_all(const PagedAttentionDescriptor& own, const Addresses<T>& at,
                          const std::vector<std::int64_t>& tables,
                          const std::vector<Query>& queries) {
  std::vector<std::size_t> blocks;
  for (const Query& query : queries) {
    QWEN3_TRY(read_blocks(own, tables, query.seq, query.visible, blocks));
    kernels::parallel_for(own.q.shape[1], 1, [&](std::size_t begin, std::size_t end) {
      for (std::size_t head = begin; head < end; ++head) {
        attend(own, at, query, head, blocks);
      }
    });
  }
  return kSuccess;
}

// A length of at most 0 leaves the row of out as it is.
std::vector<Query> decode_queries(const std::vector<std::int64_t>& lengths) {
  std::vector<Query> queries;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    if (lengths[s] > 0) {
      queries.push_back({s, s, static_cast<std::size_t>(lengths[s])});
    }
  }
  return queries;
}

// Query i of a sequence sees the keys up to total - q_len + i.
infiniStatus_t prefill_queries(const PagedAttentionDescriptor& own,
                               const std::vector<std::int64_t>& totals,
                               const std::vector<std::int64_t>& starts,
                               std::vector<Query>& queries) {
  for (std::size_t s = 0; s < totals.size(); ++s) {
    const std::int64_t begin = starts[s];
    const std::int64_t end = starts[s + 1];
    if (begin < 0 || begin > end || end > static_cast<std::int64_t>(own.q.shape[0]) ||
        totals[s] < end - begin) {
      return fail(INFINI_STATUS_BAD_PARAM,
                  "paged_attention_prefill: queries %lld to %lld of %lld keys",
                  static_cast<long long>(begin), static_cast<long long>(end),
                  static_cast<long long>(totals[s]));
    }
    for (std::int64_t token = begin; token < end; ++token) {
      queries.push_back({static_cast<std::size_t>(token), s,
                         static_cast<std::size_t>(totals[s] - (end - token) + 1)});
    }
  }
  return kSuccess;
}

// Runs queries, made by `make`, on the addresses out, q, k, v and `slopes`.
template <std::size_t Count, typename Make>
infiniStatus_t run_queries(const PagedAttentionDescriptor& own,
                           const std::array<void*, Count>& data, const Make& make) {
  const auto tables = read_integers(own.index_dtype, data[4], own.num_seqs * own.max_blocks);
  std::vector<Query> queries;
  QWEN3_TRY(make(queries));
  const auto attend_as = [&](auto tag) {
    using T = TypeOf<decltype(tag)>;
    const Addresses<T> at{static_cast<T*>(data[0]), static_cast<const T*>(data[1]),
                          static_cast<const T*>(data[2]), static_cast<const T*>(data[3]),
                          static_cast<const float*>(data[Count - 1])};
    return attend_all(own, at, tables, queries);
  };
  return own.q.dtype == INFINI_DTYPE_F16 ? attend_as(TypeTag<kernels::F16>())
                                         : attend_as(TypeTag<kernels::Bf16>());
}

}  // namespace

infiniStatus_t infiniopCreatePagedAttentionDescriptor(
    infiniopHandle_t handle, infiniopPagedAttentionDescriptor_t* desc_ptr,
    infiniopTensorDescriptor_t out, infiniopTensorDescriptor_t q,
    infiniopTensorDescriptor_t k_cache, infiniopTensorDescriptor_t v_cache,
    infiniopTensorDescriptor_t block_tables, infiniopTensorDescriptor_t seq_lens,
    infiniopTensorDescriptor_t alibi_slopes, float scale) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(handle, kPagedAttentionRules,
                      {out, q, k_cache, v_cache, block_tables, seq_lens, alibi_slopes});
    QWEN3_TRY(operands.check(6));
    QWEN3_TRY(check_shapes(operands));
    if (seq_lens->shape[0] != q->shape[0] || block_tables->shape[0] != q->shape[0] ||
        (alibi_slopes != nullptr && alibi_slopes->shape[0] != q->shape[1])) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "not one sequence per query");
    }
    QWEN3_TRY(operands.check_strides());
    return finish_create(operands, operands.in_order(), describe(operands, scale), desc_ptr);
  });
}

infiniStatus_t infiniopGetPagedAttentionWorkspaceSize(infiniopPagedAttentionDescriptor_t desc,
                                                      size_t* size) {
  return workspace_size_of(kPagedAttentionRules, desc, size);
}

infiniStatus_t infiniopPagedAttention(infiniopPagedAttentionDescriptor_t desc, void* workspace,
                                      size_t workspace_size, void* out, const void* q,
                                      const void* k_cache, const void* v_cache,
                                      const void* block_tables, const void* seq_lens,
                                      const void* alibi_slopes, void* stream) {
  return run<PagedAttentionDescriptor, 7>(
      kPagedAttentionRules, desc, {workspace, workspace_size}, stream,
      {out, q, k_cache, v_cache, block_tables, seq_lens, alibi_slopes},
      [](const PagedAttentionDescriptor& own, const std::array<void*, 7>& data) {
        return run_queries(own, data, [&](std::vector<Query>& queries) {
          queries = decode_queries(read_integers(own.index_dtype, data[5], own.num_seqs));
          return kSuccess;
        });
      });
}

infiniStatus_t infiniopDestroyPagedAttentionDescriptor(infiniopPagedAttentionDescriptor_t desc) {
  return destroy(kPagedAttentionRules, desc);
}

infiniStatus_t infiniopCreatePagedAttentionPrefillDescriptor(
    infiniopHandle_t handle, infiniopPagedAttentionPrefillDescriptor_t* desc_ptr,
    infiniopTensorDescriptor_t out, infiniopTensorDescriptor_t q,
    infiniopTensorDescriptor_t k_cache, infiniopTensorDescriptor_t v_cache,
    infiniopTensorDescriptor_t block_tables, infiniopTensorDescriptor_t seq_lens,
    infiniopTensorDescriptor_t cum_seq_lens_q, infiniopTensorDescriptor_t alibi_slopes,
    float scale) {
  return guarded([&]() -> infiniStatus_t {
    Operands operands(
        handle, kPagedAttentionPrefillRules,
        {out, q, k_cache, v_cache, block_tables, seq_lens, cum_seq_lens_q, alibi_slopes});
    QWEN3_TRY(operands.check(7));
    QWEN3_TRY(check_shapes(operands));
    if (cum_seq_lens_q->shape[0] != seq_lens->shape[0] + 1) {
      return operands.refuse(INFINI_STATUS_BAD_PARAM, "%zu borders for %zu sequences",
                             cum_seq_lens_q->shape[0], seq_lens->shape[0]);
    }
    if (block_tables->shape[0] != seq_lens->shape[0] ||
        (alibi_slopes != nullptr && alibi_slopes->shape[0] != q->shape[1])) {
      return operands.refuse(INFINI_STATUS_BAD_TENSOR_SHAPE, "not one block table per sequence");
    }
    QWEN3_TRY(operands.check_strides());
    return finish_create(operands, operands.in_order(), describe(operands, scale), desc_ptr);
  });
}

infiniStatus_t infiniopGetPagedAttentionPrefillWorkspaceSize(
    infiniopPagedAttentionPrefillDescriptor_t desc, size_t* size) {
  return workspace_size_of(kPagedAttentionPrefillRules, desc, size);
}

infiniStatus_t infiniopPagedAttentionPrefill(infiniopPagedAttentionPrefillDescriptor_t desc,
                                             void* workspace, size_t workspace_size, void* out,
                                             const void* q, const void* k_cache,
                                             const void* v_cache, const void* block_tables,
                                             const void* seq_lens, const void* cum_seq_lens_q,
                                             const void* alibi_slopes, void* stream) {
  return run<PagedAttentionDescriptor, 8>(
      kPagedAttentionPrefillRules, desc, {workspace, workspace_size}, stream,
      {out, q, k_cache, v_cache, block_tables, seq_lens, cum_seq_lens_q, alibi_slopes},
      [](const PagedAttentionDescriptor& own, const std::array<void*, 8>& data) {
        return run_queries(own, data, [&](std::vector<Query>& queries) {
          const auto totals = read_integers(own.index_dtype, data[5], own.num_seqs);
          const auto starts = read_integers(own.index_dtype, data[6], own.num_seqs + 1);
          return prefill_queries(own, totals, starts, queries);
        });
      });
}

infiniStatus_t infiniopDestroyPagedAttentionPrefillDescriptor(
    infiniopPagedAttentionPrefillDescriptor_t desc) {
  return destroy(kPagedAttentionPrefillRules, desc);
}

#endif  // QWEN3_OP_PAGED_ATTENTION && QWEN3_OP_PAGED_ATTENTION_PREFILL
