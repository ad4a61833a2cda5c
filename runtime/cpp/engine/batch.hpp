// The struct that crosses from the runtime to an engine: one step of any mix of prefill and decode.
#pragma once

#include <infinicore.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace qwen3 {

// A borrowed array of int32; the caller keeps it alive during the call.
struct Int32Span {
  const int32_t* data = nullptr;
  size_t size = 0;

  int32_t operator[](size_t index) const { return data[index]; }
};

enum class CacheKind { kContiguous, kPaged, kRecurrent };

// Layers that share one shape of cache and therefore one table of places.
struct CacheGroup {
  std::string name;
  CacheKind kind;
  infiniDtype_t dtype;  // of keys and values
  std::vector<int32_t> layers;
  size_t num_key_value_heads;
  size_t head_dim;
  int32_t window;     // 0: every earlier token is attended to
  size_t block_size;  // tokens of a block; 0 where the kind has no blocks
};

// Where the sequences of a batch lie in one cache group: `slots` [num_seqs] for contiguous and
// recurrent groups, `block_table` [num_seqs, max_blocks] for paged ones.
struct CachePlaces {
  Int32Span slots;
  Int32Span block_table;
  size_t max_blocks = 0;
};

// Sequence s brings query_lens[s] new tokens, packed in order, and has seq_lens[s] in all.
struct Batch {
  Int32Span token_ids;              // [num_tokens]
  Int32Span positions;              // [num_tokens]
  Int32Span query_lens;             // [num_seqs]
  Int32Span seq_lens;               // [num_seqs]
  Int32Span logit_rows;             // [num_logit_rows], ascending
  std::vector<CachePlaces> places;  // one per cache group
};

// Bounds an engine is created with; all memory is taken then.
struct EngineOptions {
  size_t max_model_len = 0;
  size_t max_num_seqs = 0;
  size_t max_num_batched_tokens = 0;
  int device_id = 0;
  size_t num_blocks = 0;  // of every paged cache group
};

}  // namespace qwen3
