#include "sampler/logprobs.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "sampler/likeliest.hpp"

namespace qwen3 {
namespace {

// log(sum(e^logit)), summed in double in ascending order.
double log_total(const float* logits, size_t vocab_size) {
  const double largest = logits[likeliest(logits, vocab_size)];
  double total = 0.0;
  for (size_t i = 0; i < vocab_size; ++i) {
    total += std::exp(static_cast<double>(logits[i]) - largest);
  }
  return largest + std::log(total);
}

}  // namespace

TokenLogprobs token_logprobs(const float* logits, size_t vocab_size, int32_t token, size_t num_top,
                             int32_t* top_ids, float* top_logprobs) {
  if (token < 0 || static_cast<size_t>(token) >= vocab_size || num_top > vocab_size) {
    throw SamplingError("token " + std::to_string(token) + " or " + std::to_string(num_top) +
                        " top tokens are beyond the vocabulary");
  }
  const double total = log_total(logits, vocab_size);
  const auto logprob = [&](size_t i) {
    return static_cast<float>(static_cast<double>(logits[i]) - total);
  };
  const float own = logits[token];
  const auto rank =
      1 + std::count_if(logits, logits + vocab_size, [own](float logit) { return logit > own; });
  if (num_top > 0) {
    std::vector<int32_t> order(vocab_size);
    std::iota(order.begin(), order.end(), 0);
    const auto likelier = [logits](int32_t a, int32_t b) {
      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
    };
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(num_top);
    std::partial_sort(order.begin(), end, order.end(), likelier);
    for (size_t i = 0; i < num_top; ++i) {
      top_ids[i] = order[i];
      top_logprobs[i] = logprob(static_cast<size_t>(order[i]));
    }
  }
  return {logprob(static_cast<size_t>(token)), static_cast<int32_t>(rank)};
}

}  // namespace qwen3
