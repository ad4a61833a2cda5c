// Log-probabilities of chosen and likeliest tokens, from logits as the model gave them.
//
// The NumPy twin is logprob_rows in runtime/qwen3_runtime/sampling/reference.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qwen3 {

// Of one row: the log-softmax of `token` and its rank (1 is the likeliest), and the `num_top`
// likeliest tokens, likeliest first, of equal ones the lowest first.
struct TokenLogprobs {
  float logprob;
  int32_t rank;
};

// Throws SamplingError when a logit is NaN or plus infinity, none is finite, `token` is outside the
// vocabulary, or `num_top` is larger than it. `top_ids` and `top_logprobs` are [num_top].
TokenLogprobs token_logprobs(const float* logits, size_t vocab_size, int32_t token, size_t num_top,
                             int32_t* top_ids, float* top_logprobs);

}  // namespace qwen3
