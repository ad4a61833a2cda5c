// Sampling as Python calls it: arrays in, arrays out, rows shared out among threads.
//
// qwen3_runtime/sampling/sampler.py describes the arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

namespace qwen3 {

template <class T>
using Rows = pybind11::array_t<T, pybind11::array::c_style>;

// One row's parameters per entry of each array; see sampler.hpp.
Rows<int32_t> sample_rows(const Rows<float>& logits, const Rows<double>& temperature,
                          const Rows<double>& top_p, const Rows<double>& min_p,
                          const Rows<int64_t>& top_k, const Rows<uint64_t>& seed,
                          const Rows<uint64_t>& position);

// Changes rows of logits in place; see adjustment.hpp. What a row has several of lies one after
// another in one array, up to the row's entry in `..._ends`. Columns of `penalties`: repetition,
// presence, frequency. `mask_rows` is -1 for a row without a mask.
void adjust_rows(Rows<float>& logits, const Rows<uint32_t>& masks, const Rows<int64_t>& mask_rows,
                 const Rows<int32_t>& bias_ids, const Rows<float>& bias_values,
                 const Rows<int64_t>& bias_ends, const Rows<int32_t>& context,
                 const Rows<int64_t>& context_ends, const Rows<int64_t>& prompt_lens,
                 const Rows<double>& penalties);

// Returns logprobs [num_rows], ranks [num_rows], top_ids and top_logprobs [num_rows, num_top]; see
// logprobs.hpp.
pybind11::tuple logprob_rows(const Rows<float>& logits, const Rows<int32_t>& tokens,
                             size_t num_top);

}  // namespace qwen3
