// The largest logit of a row, and the check that a token can be chosen from it at all.
#pragma once

#include <cstddef>
#include <limits>
#include <string>

#include "sampler/sampler.hpp"

namespace qwen3 {

// Index of the largest logit, the lowest of several. Throws SamplingError when a logit is NaN or
// plus infinity, or all are minus infinity.
inline size_t likeliest(const float* logits, size_t vocab_size) {
  float largest = -std::numeric_limits<float>::infinity();
  size_t token = vocab_size;
  for (size_t i = 0; i < vocab_size; ++i) {
    if (!(logits[i] <= std::numeric_limits<float>::max())) {
      throw SamplingError("logit of token " + std::to_string(i) + " is " +
                          std::to_string(logits[i]));
    }
    if (logits[i] > largest) {
      largest = logits[i];
      token = i;
    }
  }
  if (token == vocab_size) throw SamplingError("no token is possible");
  return token;
}

}  // namespace qwen3
