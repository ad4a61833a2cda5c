// The sampler behind a C function, for ctypes.
#include <cstdio>
#include <vector>

#include "sampler/philox.hpp"
#include "sampler/sampler.hpp"

extern "C" {

// Returns 0, or 1 with the message written to `error` [error_size].
int sample_rows(const float* logits, size_t num_rows, size_t vocab_size, const double* temperature,
                const double* top_p, const int64_t* top_k, const uint64_t* seed,
                const uint64_t* position, int32_t* tokens, char* error, size_t error_size) {
  static thread_local qwen3::Sampler sampler;
  std::vector<qwen3::SamplingRow> rows;
  for (size_t i = 0; i < num_rows; ++i) {
    rows.push_back({temperature[i], top_p[i], top_k[i], seed[i], position[i]});
  }
  try {
    sampler.sample(logits, num_rows, vocab_size, rows.data(), tokens);
    return 0;
  } catch (const qwen3::SamplingError& failure) {
    std::snprintf(error, error_size, "%s", failure.what());
    return 1;
  }
}

void philox(const uint32_t* counter, const uint32_t* key, uint32_t* words) {
  const auto found =
      qwen3::philox4x32({counter[0], counter[1], counter[2], counter[3]}, {key[0], key[1]});
  for (size_t i = 0; i < found.size(); ++i) words[i] = found[i];
}

double uniform_number(uint64_t seed, uint64_t position) { return qwen3::uniform(seed, position); }

}  // extern "C"
