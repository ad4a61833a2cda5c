// What a caller can get wrong in the options and batches of an engine, found before any work.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/batch.hpp"

namespace qwen3 {

// Returns `options`, before a device is touched or memory taken.
// Throws EngineFailure when they are not positive or beyond the model.
const EngineOptions& checked_options(const EngineOptions& options, size_t max_position_embeddings);

// Throws EngineFailure when a batch breaks a limit, contradicts itself, or names places outside the
// cache.
void check_batch(const Batch& batch, const EngineOptions& options, size_t vocab_size,
                 const std::vector<CacheGroup>& cache_groups);

// Throws EngineFailure when there is no such paged group, a block is out of range, or the order of
// the copies would matter.
void check_block_copies(size_t group, Int32Span sources, Int32Span destinations,
                        const EngineOptions& options, const std::vector<CacheGroup>& cache_groups);

}  // namespace qwen3
