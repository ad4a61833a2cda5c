#include "sampler/adjustment.hpp"

#include <limits>
#include <string>
#include <unordered_map>

#include "sampler/sampler.hpp"

namespace qwen3 {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

size_t checked(int32_t token, size_t vocab_size) {
  if (token < 0 || static_cast<size_t>(token) >= vocab_size) {
    throw SamplingError("token " + std::to_string(token) + " is outside the vocabulary");
  }
  return static_cast<size_t>(token);
}

void apply_mask(float* logits, size_t vocab_size, const Adjustment& adjustment) {
  for (size_t token = 0; token < vocab_size; ++token) {
    const size_t word = token / 32;
    const bool is_possible =
        word < adjustment.mask_words && (adjustment.mask[word] >> (token % 32) & 1u) != 0;
    if (!is_possible) logits[token] = kImpossible;
  }
}

void apply_penalties(float* logits, size_t vocab_size, const Adjustment& adjustment) {
  std::unordered_map<size_t, size_t> occurrences;  // in the answer, of every token in the context
  for (size_t i = 0; i < adjustment.context_len; ++i) {
    occurrences[checked(adjustment.context[i], vocab_size)] += i >= adjustment.prompt_len;
  }
  const auto repetition = static_cast<float>(adjustment.repetition_penalty);
  for (const auto& [token, count] : occurrences) {
    float& logit = logits[token];
    logit = logit > 0.0f ? logit / repetition : logit * repetition;
    if (count > 0) {
      logit -= static_cast<float>(adjustment.frequency_penalty * static_cast<double>(count));
      logit -= static_cast<float>(adjustment.presence_penalty);
    }
  }
}

}  // namespace

void adjust_row(float* logits, size_t vocab_size, const Adjustment& adjustment) {
  if (adjustment.mask != nullptr) apply_mask(logits, vocab_size, adjustment);
  for (size_t i = 0; i < adjustment.num_biases; ++i) {
    logits[checked(adjustment.bias_ids[i], vocab_size)] += adjustment.bias_values[i];
  }
  const bool is_penalised = adjustment.repetition_penalty != 1.0 ||
                            adjustment.presence_penalty != 0.0 ||
                            adjustment.frequency_penalty != 0.0;
  if (is_penalised) apply_penalties(logits, vocab_size, adjustment);
}

}  // namespace qwen3
