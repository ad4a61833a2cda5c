#include "sampler/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "sampler/likeliest.hpp"
#include "sampler/philox.hpp"

namespace qwen3 {
namespace {

void check_parameters(const SamplingRow& row) {
  if (!(row.temperature >= 0.0) || std::isinf(row.temperature)) {
    throw SamplingError("temperature is " + std::to_string(row.temperature) + ", expected >= 0");
  }
  if (!(row.top_p > 0.0 && row.top_p <= 1.0)) {
    throw SamplingError("top_p is " + std::to_string(row.top_p) + ", expected (0, 1]");
  }
  if (!(row.min_p >= 0.0 && row.min_p <= 1.0)) {
    throw SamplingError("min_p is " + std::to_string(row.min_p) + ", expected [0, 1]");
  }
}

}  // namespace

int32_t Sampler::sample_row(const float* logits, size_t vocab_size, const SamplingRow& row) {
  check_parameters(row);
  const size_t best = likeliest(logits, vocab_size);
  return row.temperature == 0.0 ? static_cast<int32_t>(best)
                                : draw(logits, vocab_size, logits[best], row);
}

int32_t Sampler::draw(const float* logits, size_t vocab_size, float largest,
                      const SamplingRow& row) {
  keep_top_k(logits, vocab_size, row.top_k);
  for (Candidate& candidate : candidates_) {
    const double difference = static_cast<double>(candidate.logit) - static_cast<double>(largest);
    candidate.weight = std::exp(difference / row.temperature);
  }
  if (row.min_p > 0.0) {
    const auto is_unlikely = [&](const Candidate& candidate) {
      return candidate.weight < row.min_p;  // the likeliest token weighs 1
    };
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), is_unlikely),
                      candidates_.end());
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
