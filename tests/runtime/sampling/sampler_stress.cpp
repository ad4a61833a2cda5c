// Drives the sampler over odd sizes, parameters and logits; built with sanitizers.
#include <cmath>
#include <cstdio>
#include <limits>
#include <vector>

#include "sampler/adjustment.hpp"
#include "sampler/logprobs.hpp"
#include "sampler/philox.hpp"
#include "sampler/sampler.hpp"

namespace {

// A logit of the given kind: plain, rounded so that many tie, huge, or excluded.
float logit(uint64_t kind, double number) {
  switch (kind % 4) {
    case 0:
      return static_cast<float>(8.0 * number - 4.0);
    case 1:
      return static_cast<float>(std::floor(4.0 * number));
    case 2:
      return static_cast<float>((number - 0.5) * 6e38);
    default:
      return number < 0.7 ? -std::numeric_limits<float>::infinity() : static_cast<float>(number);
  }
}

// Masks all but the lower half and the middle token, and penalises some.
void adjust(std::vector<float>& logits, uint64_t number) {
  std::vector<uint32_t> mask((logits.size() + 63) / 64, 0xffffffffu);
  mask.resize((logits.size() / 2 + 32) / 32, 0xffffffffu);
  const int32_t middle = static_cast<int32_t>(logits.size() / 2);
  const int32_t context[] = {0, middle, middle};
  const float bias = 0.5F;
  qwen3::adjust_row(logits.data(), logits.size(),
                    {number % 2 == 0 ? mask.data() : nullptr, mask.size(), &middle, &bias, 1,
                     context, 3, 1, 1.2, 0.1, -0.1});
}

void score(const std::vector<float>& logits, int32_t token) {
  const size_t num_top = logits.size() < 5 ? logits.size() : 5;
  std::vector<int32_t> ids(num_top);
  std::vector<float> logprobs(num_top);
  qwen3::token_logprobs(logits.data(), logits.size(), token, num_top, ids.data(), logprobs.data());
}

}  // namespace

int main() {
  constexpr double kTemperatures[] = {0.0, 1e-300, 0.3, 1.0, 1e6};
  constexpr double kTopPs[] = {1e-12, 0.3, 0.9, 1.0};
  constexpr int64_t kTopKs[] = {-1, 0, 1, 7, 1'000'000};
  qwen3::Sampler sampler;
  uint64_t draws = 0;
  for (const size_t vocab_size : {size_t{1}, size_t{2}, size_t{63}, size_t{64}, size_t{1031}}) {
    for (uint64_t kind = 0; kind < 4; ++kind) {
      std::vector<float> logits(vocab_size);
      for (size_t i = 0; i < vocab_size; ++i) {
        logits[i] = logit(kind, qwen3::uniform(kind, i));
      }
      logits[vocab_size / 2] = 1.0F;
      for (const double temperature : kTemperatures) {
        for (const double top_p : kTopPs) {
          for (const int64_t top_k : kTopKs) {
            const double min_p = draws % 3 == 0 ? 0.2 : 0.0;
            const qwen3::SamplingRow row{temperature, top_p, min_p, top_k, kind, draws++};
            std::vector<float> own = logits;
            adjust(own, draws);
            const int32_t token = sampler.sample_row(own.data(), vocab_size, row);
            score(logits, token);
            const bool possible = token >= 0 && static_cast<size_t>(token) < vocab_size &&
                                  std::isfinite(logits[static_cast<size_t>(token)]);
            if (!possible) return 1;
          }
        }
      }
    }
  }
  std::printf("%llu\n", static_cast<unsigned long long>(draws));
  return 0;
}
