#include "sampler/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "sampler/philox.hpp"

namespace qwen3 {
namespace {

[[noreturn]] void fail(size_t row, const std::string& what) {
  throw SamplingError("row " + std::to_string(row) + ": " + what);
}

void check_parameters(size_t index, const SamplingRow& row) {
  if (!(row.temperature >= 0.0) || std::isinf(row.temperature)) {
    fail(index, "temperature is " + std::to_string(row.temperature) + ", expected >= 0");
  }
  if (!(row.top_p > 0.0 && row.top_p <= 1.0)) {
    fail(index, "top_p is " + std::to_string(row.top_p) + ", expected (0, 1]");
  }
}

// Index of the largest logit, the lowest of several.
size_t likeliest(size_t row, const float* logits, size_t vocab_size) {
  float largest = -std::numeric_limits<float>::infinity();
  size_t token = vocab_size;
  for (size_t i = 0; i < vocab_size; ++i) {
    if (!(logits[i] <= std::numeric_limits<float>::max())) {
      fail(row, "logit of token " + std::to_string(i) + " is " + std::to_string(logits[i]));
    }
    if (logits[i] > largest) {
      largest = logits[i];
      token = i;
    }
  }
  if (token == vocab_size) fail(row, "no token is possible");
  return token;
}

}  // namespace

void Sampler::sample(const float* logits, size_t num_rows, size_t vocab_size,
                     const SamplingRow* rows, int32_t* tokens) {
  for (size_t i = 0; i < num_rows; ++i) {
    check_parameters(i, rows[i]);
    const float* row_logits = logits + i * vocab_size;
    const size_t best = likeliest(i, row_logits, vocab_size);
    tokens[i] = rows[i].temperature == 0.0
                    ? static_cast<int32_t>(best)
                    : draw(row_logits, vocab_size, row_logits[best], rows[i]);
  }
}

int32_t Sampler::draw(const float* logits, size_t vocab_size, float largest,
                      const SamplingRow& row) {
  keep_top_k(logits, vocab_size, row.top_k);
  for (Candidate& candidate : candidates_) {
    const double difference = static_cast<double>(candidate.logit) - static_cast<double>(largest);
    candidate.weight = std::exp(difference / row.temperature);
  }
  if (row.top_p < 1.0) keep_top_p(row.top_p);
  const double target = uniform(row.seed, row.position) * total_weight();
  double sum = 0.0;
  int32_t last = 0;  // for a target that rounds up to the whole sum
  for (const Candidate& candidate : candidates_) {
    sum += candidate.weight;
    if (sum > target) return candidate.token;
    if (candidate.weight > 0.0) last = candidate.token;
  }
  return last;
}

void Sampler::keep_top_k(const float* logits, size_t vocab_size, int64_t top_k) {
  float threshold = -std::numeric_limits<float>::infinity();
  if (top_k > 0 && static_cast<uint64_t>(top_k) < vocab_size) {
    ordered_.assign(logits, logits + vocab_size);
    const auto kth = ordered_.begin() + (top_k - 1);
    std::nth_element(ordered_.begin(), kth, ordered_.end(), std::greater<float>());
    threshold = *kth;
  }
  candidates_.clear();
  for (size_t i = 0; i < vocab_size; ++i) {
    if (logits[i] >= threshold) candidates_.push_back({0.0, logits[i], static_cast<int32_t>(i)});
  }
}

// Sorts only as far as needed: the tokens kept are few where top-p does anything.
void Sampler::keep_top_p(double top_p) {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  const auto by_token = [](const Candidate& a, const Candidate& b) { return a.token < b.token; };
  constexpr size_t kFirstChunk = 64;
  const double enough = top_p * total_weight();
  const size_t size = candidates_.size();
  double mass = 0.0;
  size_t num_kept = 0;
  for (size_t sorted = 0; num_kept < size && !(mass >= enough);) {
    if (num_kept == sorted) {
      const size_t next = std::min(size, std::max(kFirstChunk, sorted * 4));
      std::partial_sort(candidates_.begin() + sorted, candidates_.begin() + next, candidates_.end(),
                        likelier);
      sorted = next;
    }
    mass += candidates_[num_kept++].weight;
  }
  candidates_.resize(num_kept);
  std::sort(candidates_.begin(), candidates_.end(), by_token);
}

double Sampler::total_weight() const {
  double total = 0.0;
  for (const Candidate& candidate : candidates_) total += candidate.weight;
  return total;
}

}  // namespace qwen3
