// Choosing one index from one row of logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace qwen3::kernels {

// Index of the largest logit, the lowest of equals.
inline std::size_t argmax(const std::vector<double>& logits) {
  return static_cast<std::size_t>(
      std::distance(logits.begin(), std::max_element(logits.begin(), logits.end())));
}

// Draws from softmax(logits / temperature) cut to the top_k largest and to the smallest set of
// largest ones whose mass reaches top_p of the whole.
//
// With c the running sums of exp((l[i] - l[0]) / temperature) in descending order, it is the first
// i with c[i] >= random_value * min(c[top_k - 1], top_p * c[n - 1]).
//
// Args:
//   logits: At least one, none of them NaN.
//   top_k: At least 1; more than the number of logits means all.
inline std::size_t sample(const std::vector<double>& logits, double random_value, double top_p,
                          std::size_t top_k, double temperature) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const std::size_t kept = std::min(top_k, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(),
                    [&](std::size_t a, std::size_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                    });
  const double top = logits[order[0]];
  const auto mass = [&](std::size_t index) {
    return std::exp((logits[index] - top) / temperature);
  };
  std::vector<double> running(kept);
  double total = 0.0;
  for (std::size_t i = 0; i < kept; ++i) {
    total += mass(order[i]);
    running[i] = total;
  }
  for (std::size_t i = kept; i < order.size(); ++i) {
    total += mass(order[i]);
  }
  const double limit = random_value * std::min(running.back(), top_p * total);
  const auto chosen = std::lower_bound(running.begin(), running.end(), limit);
  const auto position = static_cast<std::size_t>(std::distance(running.begin(), chosen));
  return order[std::min(position, kept - 1)];
}

}  // namespace qwen3::kernels
