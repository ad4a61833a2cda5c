// Causal attention over a contiguous cache, made of gemm, causal_softmax and rearrange.
//
// Shapes live in descriptors, so total lengths are padded to buckets of kLengthBucket and an
// additive mask hides the padding, the future and what lies outside the window:
//   scores = scale * Q K^T + mask        (gemm with beta = 1 onto the mask)
//   output = softmax(scores) V
// The mask is large and finite; its exponential is exactly 0, and nothing ever stores an infinity.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/batch.hpp"
#include "engine/portable/portable_engine.hpp"
#include "engine/tensor.hpp"
#include "kernels/half.hpp"

namespace qwen3 {

struct AttentionShape {
  size_t num_heads;
  size_t num_key_value_heads;
  size_t head_dim;

  size_t group_size() const { return num_heads / num_key_value_heads; }
};

// A run of query rows of one sequence and the keys they may see.
struct AttentionBlock {
  size_t sequence;
  size_t first_row;  // in the packed batch
  size_t num_rows;
  size_t first_key;    // multiple of kLengthBucket
  size_t num_keys;     // multiple of kLengthBucket
  size_t mask_offset;  // elements into the mask buffer
};

// `Ops` is the engine's own set of call sites (infinicore_ops.hpp).
template <class Ops>
class ContiguousAttention {
 public:
  // `num_windows` distinct windows, as listed in `windows` (0: none), share the scratch memory.
  ContiguousAttention(Ops& ops, const Device& device, AttentionShape shape,
                      const EngineOptions& options, std::vector<int32_t> windows,
                      const Tensor& scratch, const Tensor& mask)
      : ops_(ops),
        device_(device),
        shape_(shape),
        options_(options),
        windows_(std::move(windows)),
        scratch_(scratch),
        mask_(mask),
        plans_(windows_.size()) {}

  // Elements of scratch: a row of zeros and the query rows of a block. Within kScratchBytes as many
  // rows as there may be, but at least one of the longest context.
  static size_t scratch_elements(AttentionShape shape, const EngineOptions& options,
                                 infiniDtype_t dtype) {
    const size_t row = row_elements(shape, round_up(options.max_model_len, kLengthBucket));
    const size_t limit = std::min(options.max_num_batched_tokens, kMaxRowsPerBlock);
    const size_t fitting = kScratchBytes / (row * element_size(dtype));
    return shape.head_dim + std::clamp<size_t>(fitting, 1, limit) * row;
  }
  // Elements of mask: every query row against every key it might see, per window.
  static size_t mask_elements(const EngineOptions& options, size_t num_windows) {
    return num_windows * options.max_num_batched_tokens *
           round_up(options.max_model_len, kLengthBucket);
  }

  // Cuts the batch into blocks and uploads their masks; once per step, for all layers.
  void begin_step(const Batch& batch) {
    batch_ = &batch;
    host_mask_.clear();
    for (size_t w = 0; w < windows_.size(); ++w) plan_blocks(static_cast<size_t>(windows_[w]), w);
    const std::vector<std::byte> bytes = stored_as(mask_.dtype, host_mask_);
    device_.copy_to_device(mask_.data, bytes.data(), bytes.size());
    device_.synchronize();
  }

  // output [num_tokens, num_heads, head_dim]; query likewise; key and value
  // [num_tokens, num_key_value_heads, head_dim] are appended to `cache` first.
  void run(const Tensor& output, const Tensor& query, const Tensor& key, const Tensor& value,
           const LayerCache& cache, const CachePlaces& places, int32_t window, float scale) {
    size_t first_row = 0;
    for (size_t s = 0; s < batch_->query_lens.size; ++s) {
      const size_t slot = static_cast<size_t>(places.slots[s]);
      append(cache.keys.at(0, slot), key, s, first_row);
      append(cache.values.at(0, slot), value, s, first_row);
      first_row += static_cast<size_t>(batch_->query_lens[s]);
    }
    const size_t plan = std::find(windows_.begin(), windows_.end(), window) - windows_.begin();
    for (const AttentionBlock& block : plans_[plan]) {
      const size_t slot = static_cast<size_t>(places.slots[block.sequence]);
      const Tensor keys = cache.keys.at(0, slot).slice(1, block.first_key, block.num_keys);
      const Tensor values = cache.values.at(0, slot).slice(1, block.first_key, block.num_keys);
      attend(block, output.rows(block.first_row, block.num_rows),
             query.rows(block.first_row, block.num_rows), keys, values, scale);
    }
  }

 private:
  static constexpr size_t kMaxRowsPerBlock = 256;
  static constexpr size_t kScratchBytes = size_t{64} << 20;

  // Scratch of one query row: its scores, and its query and output in head-major order.
  static size_t row_elements(AttentionShape shape, size_t num_keys) {
    return shape.num_heads * (num_keys + 2 * shape.head_dim);
  }

  // Far below any score and far from overflow when a score is added; exp() of it is exactly 0.
  static float masked(infiniDtype_t dtype) {
    return dtype == INFINI_DTYPE_F16 ? -30000.0f : -1e30f;
  }

  // Copies the new rows of a sequence behind its cached ones, [heads, capacity, head_dim], and
  // zeroes the rest of a bucket that is entered: what an earlier sequence left there could be
  // infinite, and 0 * infinity is not 0.
  void append(const Tensor& cache, const Tensor& rows, size_t sequence, size_t first_row) {
    const size_t seq_len = static_cast<size_t>(batch_->seq_lens[sequence]);
    const size_t query_len = static_cast<size_t>(batch_->query_lens[sequence]);
    const size_t past = seq_len - query_len;
    ops_.rearrange(cache.slice(1, past, query_len),
                   rows.rows(first_row, query_len).permute({1, 0, 2}));
    const size_t padded = round_up(seq_len, kLengthBucket);
    if (padded > round_up(past, kLengthBucket) && padded > seq_len) {
      ops_.rearrange(cache.slice(1, seq_len, padded - seq_len), zeros(padded - seq_len));
    }
  }

  // [num_key_value_heads, count, head_dim] of zeros: one row of zeros, repeated.
  Tensor zeros(size_t count) const {
    return scratch_.rows(0, shape_.head_dim)
        .repeated(0, count)
        .repeated(0, shape_.num_key_value_heads);
  }

  void plan_blocks(size_t window, size_t w) {
    plans_[w].clear();
    size_t first_row = 0;
    for (size_t s = 0; s < batch_->query_lens.size; ++s) {
      const size_t query_len = static_cast<size_t>(batch_->query_lens[s]);
      const size_t past = static_cast<size_t>(batch_->seq_lens[s]) - query_len;
      for (size_t start = 0; start < query_len; start += plans_[w].back().num_rows) {
        AttentionBlock block = block_at(past + start, query_len - start, window);
        block.sequence = s;
        block.first_row = first_row + start;
        plans_[w].push_back(block);
        append_mask(past + start, block, window);
      }
      first_row += query_len;
    }
  }

  // As many of `rows` query rows from `position` on as scratch has room for.
  AttentionBlock block_at(size_t position, size_t rows, size_t window) const {
    AttentionBlock block{};
    const size_t oldest = window > 0 && position + 1 > window ? position + 1 - window : 0;
    block.first_key = oldest / kLengthBucket * kLengthBucket;
    block.num_rows = std::min(rows, kMaxRowsPerBlock);
    const auto num_keys = [&] {
      return round_up(position + block.num_rows, kLengthBucket) - block.first_key;
    };
    const size_t room = scratch_.shape[0] - shape_.head_dim;
    block.num_rows = std::min(block.num_rows, room / row_elements(shape_, num_keys()));
    block.num_keys = num_keys();
    block.mask_offset = host_mask_.size();
    return block;
  }

  // Row i stands at `position + i` and sees the `window` keys up to itself, or all.
  void append_mask(size_t position, const AttentionBlock& block, size_t window) {
    const float hidden = masked(mask_.dtype);
    for (size_t last = position; last < position + block.num_rows; ++last) {
      for (size_t key = block.first_key; key < block.first_key + block.num_keys; ++key) {
        const bool is_seen = key <= last && (window == 0 || key + window > last);
        host_mask_.push_back(is_seen ? 0.0f : hidden);
      }
    }
  }

  void attend(const AttentionBlock& block, const Tensor& output, const Tensor& query,
              const Tensor& keys, const Tensor& values, float scale) {
    const size_t rows = block.num_rows, group = shape_.group_size();
    const size_t kv_heads = shape_.num_key_value_heads, dim = shape_.head_dim;
    // The first head_dim elements of scratch stay zero; see `zeros`.
    Tensor free = scratch_.rows(dim, scratch_.shape[0] - dim);
    const Tensor scores = free.shaped({kv_heads, group, rows, block.num_keys});
    free = free.rows(scores.num_elements(), free.shape[0] - scores.num_elements());

    const Tensor mask = mask_.rows(block.mask_offset, rows * block.num_keys)
                            .shaped({rows, block.num_keys})
                            .repeated(0, group)
                            .repeated(0, kv_heads);
    ops_.rearrange(scores, mask);
    const Tensor merged_scores = scores.flatten(1);  // [kv_heads, group * rows, num_keys]
    const Tensor grouped_query = by_key_value_head(query);
    const Tensor grouped_output = by_key_value_head(output);
    if (rows == 1 || group == 1) {  // one stride walks all rows of a head: no copies needed
      ops_.gemm(merged_scores, mergeable(grouped_query), keys.transposed(), scale, 1.0f);
      softmax(scores);
      ops_.gemm(mergeable(grouped_output), merged_scores, values, 1.0f, 0.0f);
      return;
    }
    const Tensor packed = free.shaped({kv_heads, group, rows, dim});
    free = free.rows(packed.num_elements(), free.shape[0] - packed.num_elements());
    ops_.rearrange(packed, grouped_query);
    ops_.gemm(merged_scores, packed.flatten(1), keys.transposed(), scale, 1.0f);
    softmax(scores);
    const Tensor packed_output = free.shaped({kv_heads, group, rows, dim});
    ops_.gemm(packed_output.flatten(1), merged_scores, values, 1.0f, 0.0f);
    ops_.rearrange(grouped_output, packed_output);
  }

  // [rows, num_heads, head_dim] read as [kv_heads, group, rows, head_dim].
  Tensor by_key_value_head(const Tensor& tensor) const {
    return tensor.unflatten(1, shape_.num_key_value_heads, shape_.group_size())
        .permute({1, 2, 0, 3});
  }

  // [kv_heads, group, rows, head_dim] with one row or one head per group as [kv_heads, n,
  // head_dim].
  static Tensor mergeable(const Tensor& grouped) {
    return grouped.shape[2] == 1 ? grouped.at(2, 0) : grouped.at(1, 0);
  }

  void softmax(const Tensor& scores) {
    const Tensor heads = scores.flatten(0);  // [num_heads, rows, num_keys]
    ops_.causal_softmax(heads, heads);
  }

  Ops& ops_;
  const Device& device_;
  const AttentionShape shape_;
  const EngineOptions options_;
  const std::vector<int32_t> windows_;
  const Tensor scratch_;  // [scratch_elements]
  const Tensor mask_;     // [mask_elements]
  const Batch* batch_ = nullptr;
  std::vector<std::vector<AttentionBlock>> plans_;  // one per window
  std::vector<float> host_mask_;
};

}  // namespace qwen3
