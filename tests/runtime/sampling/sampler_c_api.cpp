// The sampler behind C functions, for ctypes.
#include <cstdio>
#include <string>

#include "sampler/adjustment.hpp"
#include "sampler/logprobs.hpp"
#include "sampler/philox.hpp"
#include "sampler/sampler.hpp"

namespace {

// Runs `body(row)` for all rows; returns 0, or 1 with the message written to `error`.
template <class Body>
int for_rows(size_t num_rows, char* error, size_t error_size, const Body& body) {
  for (size_t row = 0; row < num_rows; ++row) {
    try {
      body(row);
    } catch (const qwen3::SamplingError& failure) {
      std::snprintf(error, error_size, "row %zu: %s", row, failure.what());
      return 1;
    }
  }
  return 0;
}

}  // namespace

extern "C" {

int sample_rows(const float* logits, size_t num_rows, size_t vocab_size, const double* temperature,
                const double* top_p, const double* min_p, const int64_t* top_k,
                const uint64_t* seed, const uint64_t* position, int32_t* tokens, char* error,
                size_t error_size) {
  static thread_local qwen3::Sampler sampler;
  return for_rows(num_rows, error, error_size, [&](size_t i) {
    tokens[i] =
        sampler.sample_row(logits + i * vocab_size, vocab_size,
                           {temperature[i], top_p[i], min_p[i], top_k[i], seed[i], position[i]});
  });
}

// One row; `mask_words` 0 is no mask.
int adjust_row(float* logits, size_t vocab_size, const uint32_t* mask, size_t mask_words,
               const int32_t* bias_ids, const float* bias_values, size_t num_biases,
               const int32_t* context, size_t context_len, size_t prompt_len,
               const double* penalties, char* error, size_t error_size) {
  return for_rows(1, error, error_size, [&](size_t) {
    qwen3::adjust_row(
        logits, vocab_size,
        {mask_words > 0 ? mask : nullptr, mask_words, bias_ids, bias_values, num_biases, context,
         context_len, prompt_len, penalties[0], penalties[1], penalties[2]});
  });
}

int logprob_rows(const float* logits, size_t num_rows, size_t vocab_size, const int32_t* tokens,
                 size_t num_top, float* logprobs, int32_t* ranks, int32_t* top_ids,
                 float* top_logprobs, char* error, size_t error_size) {
  return for_rows(num_rows, error, error_size, [&](size_t i) {
    const qwen3::TokenLogprobs found =
        qwen3::token_logprobs(logits + i * vocab_size, vocab_size, tokens[i], num_top,
                              top_ids + i * num_top, top_logprobs + i * num_top);
    logprobs[i] = found.logprob;
    ranks[i] = found.rank;
  });
}

void philox(const uint32_t* counter, const uint32_t* key, uint32_t* words) {
  const auto found =
      qwen3::philox4x32({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
  for (size_t i = 0; i < found.size(); ++i) words[i] = found[i];
}

double uniform_number(uint64_t seed, uint64_t position) { return qwen3::uniform(seed, position); }

}  // extern "C"
