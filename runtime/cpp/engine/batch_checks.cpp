#include "engine/batch_checks.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

#include "engine/check.hpp"

namespace qwen3 {
namespace {

void require_of(size_t sequence, bool condition, const char* message) {
  require_else(condition, [&] { return "sequence " + std::to_string(sequence) + ": " + message; });
}

void check_lengths(const Batch& batch, const EngineOptions& options) {
  const size_t num_tokens = batch.token_ids.size;
  const size_t num_seqs = batch.query_lens.size;
  require(num_seqs <= options.max_num_seqs && batch.seq_lens.size == num_seqs,
          "a step takes at most max_num_seqs sequences, with a seq_len each");
  size_t start = 0;
  for (size_t s = 0; s < num_seqs; ++s) {
    const int32_t query_len = batch.query_lens[s], seq_len = batch.seq_lens[s];
    require_of(s, query_len > 0 && seq_len >= query_len, "bad lengths");
    require_of(s, static_cast<size_t>(seq_len) <= options.max_model_len,
               "longer than max_model_len");
    require_of(s, start + query_len <= num_tokens, "more tokens than the step brings");
    for (int32_t i = 0; i < query_len; ++i) {
      require_of(s, batch.positions[start + i] == seq_len - query_len + i,
                 "positions do not follow its lengths");
    }
    start += query_len;
  }
  require(start == num_tokens, "query_lens do not add up to the number of tokens");
}

void check_slots(const Batch& batch, const EngineOptions& options, const CachePlaces& places) {
  const size_t num_seqs = batch.query_lens.size;
  require(places.slots.size == num_seqs, "a contiguous cache group needs one slot per sequence");
  std::vector<bool> taken(options.max_num_seqs);
  for (size_t s = 0; s < num_seqs; ++s) {
    const int32_t slot = places.slots[s];
    require_of(s, slot >= 0 && static_cast<size_t>(slot) < taken.size() && !taken[slot],
               "its slot is out of range or used twice");
    taken[slot] = true;
  }
}

// Sequences may share blocks they only read; a block that is written belongs to one of them.
void check_blocks(const Batch& batch, const EngineOptions& options, const CachePlaces& places,
                  size_t block_size) {
  const size_t num_seqs = batch.query_lens.size;
  require(places.block_table.size == num_seqs * places.max_blocks,
          "a paged cache group needs one row of the block table per sequence");
  std::vector<uint32_t> readers(options.num_blocks);
  const auto block_at = [&](size_t s, size_t index) {
    return places.block_table[s * places.max_blocks + index];
  };
  const auto blocks_of = [&](int32_t length) {
    return (static_cast<size_t>(length) + block_size - 1) / block_size;
  };
  for (size_t s = 0; s < num_seqs; ++s) {
    const size_t count = blocks_of(batch.seq_lens[s]);
    require_of(s, count <= places.max_blocks, "its row of the block table is too short");
    for (size_t index = 0; index < count; ++index) {
      const int32_t block = block_at(s, index);
      require_of(s, block >= 0 && static_cast<size_t>(block) < readers.size(),
                 "a block of its table is out of range");
      ++readers[block];
    }
  }
  for (size_t s = 0; s < num_seqs; ++s) {
    const size_t first = static_cast<size_t>(batch.seq_lens[s] - batch.query_lens[s]) / block_size;
    for (size_t index = first; index < blocks_of(batch.seq_lens[s]); ++index) {
      require_of(s, readers[block_at(s, index)] == 1, "a block it writes is used twice");
    }
  }
}

}  // namespace

const EngineOptions& checked_options(const EngineOptions& options, size_t max_position_embeddings) {
  require(
      options.max_model_len > 0 && options.max_num_seqs > 0 && options.max_num_batched_tokens > 0,
      "max_model_len, max_num_seqs and max_num_batched_tokens must be positive");
  require(std::max({options.max_num_seqs, options.max_num_batched_tokens, options.num_blocks}) <=
              size_t{INT32_MAX},
          "max_num_seqs, max_num_batched_tokens and num_blocks must fit 32 bits");
  require_else(options.max_model_len <= max_position_embeddings, [&] {
    return "max_model_len " + std::to_string(options.max_model_len) + " is beyond the " +
           std::to_string(max_position_embeddings) +
           " positions of the model (max_position_embeddings)";
  });
  return options;
}

void check_batch(const Batch& batch, const EngineOptions& options, size_t vocab_size,
                 const std::vector<CacheGroup>& cache_groups) {
  const size_t num_tokens = batch.token_ids.size;
  require_else(num_tokens > 0 && num_tokens <= options.max_num_batched_tokens, [&] {
    return "a step takes 1 to " + std::to_string(options.max_num_batched_tokens) +
           " tokens (max_num_batched_tokens), got " + std::to_string(num_tokens);
  });
  require(batch.positions.size == num_tokens, "a step needs one position per token");
  check_lengths(batch, options);
  require(batch.places.size() == cache_groups.size(), "a step needs places in every cache group");
  for (size_t group = 0; group < cache_groups.size(); ++group) {
    if (cache_groups[group].kind == CacheKind::kPaged) {
      check_blocks(batch, options, batch.places[group], cache_groups[group].block_size);
    } else {
      check_slots(batch, options, batch.places[group]);
    }
  }
  for (size_t i = 0; i < num_tokens; ++i) {
    const int32_t token = batch.token_ids[i];
    require_else(token >= 0 && static_cast<size_t>(token) < vocab_size, [&] {
      return "token id " + std::to_string(token) + " is outside the vocabulary of " +
             std::to_string(vocab_size);
    });
  }
  int32_t previous = -1;
  for (size_t i = 0; i < batch.logit_rows.size; ++i) {
    const int32_t row = batch.logit_rows[i];
    require(row > previous && static_cast<size_t>(row) < num_tokens,
            "logit rows must be rows of the step, in ascending order");
    previous = row;
  }
}

void check_block_copies(size_t group, Int32Span sources, Int32Span destinations,
                        const EngineOptions& options, const std::vector<CacheGroup>& cache_groups) {
  require_else(group < cache_groups.size(), [&] {
    return "there is no cache group " + std::to_string(group) + ", the engine has " +
           std::to_string(cache_groups.size());
  });
  require_else(cache_groups[group].kind == CacheKind::kPaged, [&] {
    return "cache group " + cache_groups[group].name + " is not paged: it has no blocks to copy";
  });
  require(sources.size == destinations.size, "every block that is copied needs one destination");
  std::vector<bool> is_source(options.num_blocks), is_written(options.num_blocks);
  const auto require_block = [&](int32_t block) {
    require_else(block >= 0 && static_cast<size_t>(block) < options.num_blocks, [&] {
      return "block " + std::to_string(block) + " is out of range: the engine has " +
             std::to_string(options.num_blocks) + " blocks";
    });
  };
  for (size_t i = 0; i < sources.size; ++i) {
    require_block(sources[i]);
    is_source[sources[i]] = true;
  }
  for (size_t i = 0; i < destinations.size; ++i) {
    require_block(destinations[i]);
    require_else(!is_source[destinations[i]] && !is_written[destinations[i]], [&] {
      return "block " + std::to_string(destinations[i]) +
             " is a destination and also a source, or a destination twice";
    });
    is_written[destinations[i]] = true;
  }
}

}  // namespace qwen3
